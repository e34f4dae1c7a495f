# make try: the network of the repository on worlds that it has never seen
# make demo: a network trained on synthetic cities, its errors and its pictures     make test: the tests
# PYTHON=python3.12 picks the interpreter, VENV=/elsewhere the place of the virtual environment.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: try demo test lint install all

# What `make try` and `make demo` need; `all` is every group of requirements/.
install: $(VENV)/installed
all: $(VENV)/installed_all

$(VENV)/installed: requirements/base.txt
$(VENV)/installed_all: requirements.txt $(wildcard requirements/*.txt)
$(VENV)/installed $(VENV)/installed_all:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "$(PYTHON) is missing, or not of 3.11 to 3.14, for which all packages have wheels; name another: make PYTHON=python3.12"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

test: all
	$(RUN) -m pytest

lint: all
	$(RUN) -m ruff check .

TRY = data/try
OWN = $(RUN) visualize_loc.py --panorama street.jpg --satellite above.png --metres_per_pixel 0.15 --heading 0

try: install
	@$(RUN) -m dataset.mini_vigor --root $(TRY) --styles varied --seed 2026 --panoramas 2 --panorama_width 1024
	@$(RUN) visualize_loc.py --model_path pretrained --tta 8 --dataset_root $(TRY) --idx 0-3 --output_dir $(TRY)/pictures
	@echo "The network of the repository (runs/pretrained) has never seen these drawn streets, nor any real one."
	@echo "For your own two images, give the satellite image north up, its metres per pixel and, if it is known, the bearing of"
	@echo "the panorama's centre (without --heading, every heading is tried):"
	@echo "    $(OWN)"

DEMO_SIZE = --satellite_size 128 --panorama_size 128 256
DEMO_DATA = --dataset_root data/mini_vigor --cache_root data/mini_vigor_128

demo: install
	$(RUN) -m dataset.mini_vigor --root data/mini_vigor
	$(RUN) -m dataset.cache $(DEMO_DATA) $(DEMO_SIZE)
	$(RUN) train_VIGOR.py $(DEMO_DATA) $(DEMO_SIZE) --runs_root runs/demo --network light --batch_size 4 --epochs 8 --val_every 8
	run=$$(ls -td runs/demo/*/ | head -n 1) && \
	$(RUN) eval_VIGOR.py --model_path $$run $(DEMO_DATA) && \
	$(RUN) visualize_loc.py --model_path $$run $(DEMO_DATA) --idx 0 150 300 450 && \
	echo "The demo is done. In $$run: the network (best.pt), its errors (results/), four pictures (visualizations_loc/)."
