/* A map to zoom and drag, with layers, and a street image to look around in; both show one direction.

   Positions on the map are (x, y) in pixels of the satellite image as it was given, bearings are degrees
   clockwise from north. engine/app/scene.py makes what `show` takes. Nothing is asked from any server. */
"use strict";
(() => {
  const RADIANS = Math.PI / 180, WEDGE = 96, YELLOW = "#f0e442";
  const NAMES = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
  const wrap = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const PARTS = `<canvas class="street" tabindex="0" role="slider" aria-valuemin="0" aria-valuemax="359"
      aria-label="Street image: left and right keys turn, plus and minus zoom"></canvas>
    <canvas class="map" tabindex="0" role="application"
      aria-label="Map: arrow keys move, plus and minus zoom, 0 shows all"></canvas>
    <div class="tools"><button type="button" data-do="in" aria-label="Zoom in">+</button>
      <button type="button" data-do="out" aria-label="Zoom out">−</button>
      <button type="button" data-do="fit">Show all</button>
      <button type="button" data-do="measure" aria-pressed="false">Measure</button>
      <button type="button" data-do="aim" aria-pressed="false">Set the heading</button></div>
    <output class="says" aria-live="polite"></output>
    <div class="frames"><button type="button" data-do="play" aria-pressed="false">Play</button>
      <input type="range" min="0" step="1" aria-label="Frame"><span></span></div>
    <fieldset class="layers"><legend>On the map</legend></fieldset>`;

  // Pinhole cameras as common/camera.py has them, without lens distortion.
  function photoRay(camera, x, y) {
    const u = (x - camera.cx) / camera.fx, v = (y - camera.cy) / camera.fy;
    const [p, r] = [camera.pitch * RADIANS, camera.roll * RADIANS];
    const right = u * Math.cos(r) - v * Math.sin(r), down = v * Math.cos(r) + u * Math.sin(r);
    return Math.atan2(right, Math.cos(p) + down * Math.sin(p)) / RADIANS;
  }
  function photoPlace(camera, bearing, depression) {
    const [b, d] = [bearing * RADIANS, depression * RADIANS];
    const [p, r] = [camera.pitch * RADIANS, camera.roll * RADIANS];
    const ahead = Math.cos(d) * Math.cos(b), across = Math.cos(d) * Math.sin(b), below = Math.sin(d);
    const depth = ahead * Math.cos(p) - below * Math.sin(p), down = ahead * Math.sin(p) + below * Math.cos(p);
    const u = (across * Math.cos(r) + down * Math.sin(r)) / depth;
    const v = (down * Math.cos(r) - across * Math.sin(r)) / depth;
    return depth > 1e-6 ? [camera.fx * u + camera.cx, camera.fy * v + camera.cy] : null;
  }

  class Scene {
    constructor(element, trigger) {
      Object.assign(this, { element, trigger, value: {}, images: new Map(), kept: {}, fov: 140, look: 0 });
      Object.assign(this, { up: -6, scale: 1, x: 0, y: 0, mode: "", measured: [], frame: 0, pointers: new Map() });
      element.innerHTML = PARTS;
      const part = (name) => element.querySelector(name);
      Object.assign(this, { street: part(".street"), map: part(".map"), says: part(".says") });
      Object.assign(this, { layers: part(".layers"), frames: part(".frames"), slider: part(".frames input") });
      this.say = "";
      part(".tools").onclick = (event) => this.press(event.target.dataset.do);
      part(".frames button").onclick = () => this.press("play");
      this.slider.oninput = () => this.goTo(+this.slider.value);
      for (const [canvas, over] of [[this.street, "Street"], [this.map, "Map"]]) {
        canvas.onpointerdown = (event) => this.down(event, canvas, over);
        canvas.onpointermove = (event) => this.move(event, over);
        canvas.onpointerup = canvas.onpointercancel = (event) => this.release(event, over);
        canvas.onkeydown = (event) => { if (this[`key${over}`](event.key)) event.preventDefault(); };
        canvas.addEventListener("wheel", (event) => this.wheel(event, canvas, over), { passive: false });
      }
      new ResizeObserver(() => this.fitIfNew() || this.draw()).observe(element);
    }

    image(url) {  // loaded once; drawn as soon as it is there
      if (!this.images.has(url)) {
        const image = new Image();
        image.onload = () => this.draw();
        image.src = url;
        this.images.set(url, image);
      }
      const image = this.images.get(url);
      return image.complete && image.naturalWidth ? image : null;
    }

    show(value) {
      const before = this.value;
      this.value = { ...value };
      if (this.value.map === "kept") this.value.map = before.map;
      const { map, street, frames, layers = [] } = this.value;
      const used = JSON.stringify(this.value);
      for (const url of this.images.keys()) if (!used.includes(url)) this.images.delete(url);
      Object.assign(this, { measured: [], said: "" });
      this.setMode(this.value.mode || "");
      this.element.classList.toggle("empty", !map);
      this.street.hidden = !street && !frames;
      this.frames.hidden = !frames;
      this.element.querySelector("[data-do=aim]").hidden = !this.value.aim;
      this.element.querySelector("[data-do=measure]").hidden = !this.value.measure;
      if (!map || !before.map || map.image !== before.map.image) this.fresh = true;
      if (street && street.image !== before.street?.image) this.look = street.heading || 0;
      this.listLayers(layers);
      if (frames) {
        this.slider.max = frames.length - 1;
        this.goTo(0);
      }
      if (this.value.link) history.replaceState(null, "", this.value.link);
      this.fitIfNew() || this.draw();
    }

    listLayers(layers) {
      this.layers.replaceChildren(this.layers.firstElementChild);
      this.layers.hidden = !layers.length;
      for (const layer of layers) {
        const state = this.kept[layer.name] ??= { shown: layer.shown !== false, opacity: layer.opacity ?? 1 };
        const part = document.createElement("div"), row = document.createElement("label"), box = document.createElement("input");
        Object.assign(box, { type: "checkbox", checked: state.shown });
        box.onchange = () => { state.shown = box.checked; this.draw(); };
        const swatch = document.createElement("i");
        swatch.style.background = layer.colour || "linear-gradient(90deg,#3b0f70,#de4968,#fcfdbf)";
        row.append(box, swatch, layer.says ? `${layer.name} (${layer.says})` : layer.name);
        part.append(row);
        this.layers.append(part);
        if (!layer.image) continue;
        const range = document.createElement("input");
        Object.assign(range, { type: "range", min: 0, max: 1, step: 0.05, value: state.opacity });
        range.setAttribute("aria-label", `Opacity: ${layer.name}`);
        range.oninput = () => { state.opacity = +range.value; this.draw(); };
        part.append(range);
      }
    }

    // What is looked at: a frame of a drive, or the scene itself.
    get here() { return this.value.frames ? this.value.frames[this.frame] : this.value; }
    get place() { return this.here.place || null; }
    get camera() { return this.here.street || null; }
    get heading() { return this.camera?.heading ?? 0; }
    get photo() { return this.camera?.kind === "photo"; }
    bearingTo(x, y) { return Math.atan2(x - this.place[0], this.place[1] - y) / RADIANS; }
    get wedge() { return this.photo ? [this.heading, this.camera.hfov] : [this.look, Math.min(this.fov, this.camera.span)]; }

    goTo(frame) {
      const before = this.place, heading = this.camera ? this.heading : 0;
      this.frame = frame;
      if (this.camera) this.look = frame ? wrap(this.look + this.heading - heading) : this.heading;
      this.slider.value = frame;
      this.frames.lastElementChild.textContent = this.here.words;
      if (before && this.place && !this.fresh && this.scale > this.fitScale() * 1.2) {
        this.x -= (this.place[0] - before[0]) * this.scale;  // what is looked at closely is followed
        this.y -= (this.place[1] - before[1]) * this.scale;
      }
      this.draw();
    }

    press(what) {
      const [w, h] = [this.map.clientWidth / 2, this.map.clientHeight / 2];
      if (what === "in" || what === "out") this.zoom(what === "in" ? 1.5 : 1 / 1.5, w, h);
      if (what === "fit") this.fit();
      if (what === "measure" || what === "aim") this.setMode(this.mode === what ? "" : what);
      if (what === "play") this.play(!this.timer);
    }

    play(on) {
      clearInterval(this.timer);
      this.timer = on ? setInterval(() => this.goTo((this.frame + 1) % this.value.frames.length), 250) : 0;
      const button = this.frames.querySelector("button");
      button.textContent = on ? "Pause" : "Play";
      button.setAttribute("aria-pressed", on);
    }

    setMode(mode) {
      this.mode = mode;
      this.measured = [];
      for (const name of ["measure", "aim"])
        this.element.querySelector(`[data-do=${name}]`).setAttribute("aria-pressed", mode === name);
      this.said = { measure: "Click two points on the map whose distance you know.", aim: "Drag the street image " +
        "or the wedge on the map until both show the same thing in the same direction." }[mode] || "";
      this.draw();
    }

    fitScale() {
      const { width, height } = this.value.map;
      return Math.min(this.map.clientWidth / width, this.map.clientHeight / height);
    }
    fitIfNew() { return this.fresh && this.value.map && this.map.clientWidth ? (this.fit(), true) : false; }
    fit() {
      const { width, height } = this.value.map;
      this.fresh = false;
      this.scale = this.fitScale();
      this.x = (this.map.clientWidth - width * this.scale) / 2;
      this.y = (this.map.clientHeight - height * this.scale) / 2;
      this.draw();
    }
    zoom(by, x, y) {
      by = clamp(this.scale * by, this.fitScale() / 2, 60) / this.scale;
      this.x = x - (x - this.x) * by;
      this.y = y - (y - this.y) * by;
      this.scale *= by;
      this.draw();
    }
    toScreen([x, y]) { return [this.x + x * this.scale, this.y + y * this.scale]; }
    toMap(x, y) { return [(x - this.x) / this.scale, (y - this.y) / this.scale]; }

    wheel(event, canvas, over) {
      if (document.activeElement !== canvas && !event.ctrlKey) return;  // the page scrolls
      event.preventDefault();
      const by = Math.exp(-event.deltaY / 400);
      if (over === "Map") this.zoom(by, event.offsetX, event.offsetY);
      else this.widen(1 / by);
    }
    widen(by) { this.fov = clamp(this.fov * by, 25, 360); this.draw(); }

    keyMap(key) {
      const way = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
      if (way) { this.x += 60 * way[0]; this.y += 60 * way[1]; this.draw(); return true; }
      const named = { "+": "in", "=": "in", "-": "out", 0: "fit" }[key];
      if (named) this.press(named);
      return Boolean(named);
    }
    keyStreet(key) {
      const turn = { ArrowLeft: -5, ArrowRight: 5, Home: -wrap(this.look - this.heading) }[key];
      if (turn !== undefined) this.turn(turn);
      else if (key === "ArrowUp" || key === "ArrowDown") this.up += key === "ArrowUp" ? 4 : -4;
      else if ("+=-".includes(key)) this.widen(key === "-" ? 1.25 : 0.8);
      else return false;
      this.draw();
      return true;
    }

    turn(degrees) {  // the look, and with it, where the heading is set by the wedge, the heading
      this.look = wrap(this.look + degrees);
      if (this.mode === "aim") this.head(this.heading + degrees);
    }
    head(heading) { this.camera.heading = wrap(heading); this.draw(); }

    down(event, canvas, over) {
      canvas.focus();
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      this.start = [event.offsetX, event.offsetY];
      this.still = this.pointers.size === 1;
      this.grip = over === "Map" && this.onWedge(event.offsetX, event.offsetY);
    }
    move(event, over) {
      const [x, y] = [event.offsetX, event.offsetY], before = this.pointers.get(event.pointerId);
      if (!before) {
        if (over === "Map") this.map.style.cursor = this.mode === "measure" ? "crosshair" :
          this.onWedge(x, y) ? "grab" : "default";
        return;
      }
      if (this.still && Math.hypot(x - this.start[0], y - this.start[1]) < 4) return;
      this.still = false;
      this.pointers.set(event.pointerId, [x, y]);
      const [dx, dy] = [x - before[0], y - before[1]];
      if (this.pointers.size === 2) {
        const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
        const by = Math.hypot(x - other[0], y - other[1]) / Math.hypot(before[0] - other[0], before[1] - other[1]);
        if (over === "Map") this.zoom(by, other[0], other[1]); else this.widen(1 / by);
      } else if (over === "Street") this.dragStreet(dx, dy);
      else if (this.grip) this.turn(wrap(this.bearingTo(...this.toMap(x, y)) - this.bearingTo(...this.toMap(...before))));
      else { this.x += dx; this.y += dy; }
      this.draw();
    }
    dragStreet(dx, dy) {
      if (this.photo) return;
      const degrees = this.fov / this.street.clientWidth;
      if (this.mode === "aim") this.head(this.heading + dx * degrees);
      else this.look = wrap(this.look - dx * degrees);
      this.up = clamp(this.up + dy * degrees, -80, 80);
    }
    release(event, over) {
      const clicked = this.still && this.pointers.delete(event.pointerId) && event.type === "pointerup";
      this.pointers.delete(event.pointerId);
      if (!clicked) {
        if (this.mode === "aim") this.trigger("aim", { heading: Math.round(10 * this.heading) / 10 });
        return;
      }
      if (over === "Street") this.look = this.bearingInStreet(event.offsetX, event.offsetY) ?? this.look;
      else this.clickMap(event.offsetX, event.offsetY);
      this.draw();
    }
    clickMap(x, y) {
      const [mapX, mapY] = this.toMap(x, y);
      if (this.mode === "measure") {
        this.measured = [...(this.measured.length > 1 ? [] : this.measured), [mapX, mapY]];
        if (this.measured.length === 2) this.trigger("measure", { pixels: this.length() });
      } else if (this.value.picks) {
        const near = this.marks().filter((mark) => mark.id !== undefined).map((mark) =>
          [Math.hypot(...this.toScreen([mark.x, mark.y]).map((at, i) => at - [x, y][i])), mark.id]);
        const [away, id] = near.sort((one, other) => one[0] - other[0])[0] || [Infinity];
        this.trigger("pick", { x: mapX, y: mapY, id: away < 18 ? id : null });
      } else if (this.place) this.look = this.bearingTo(mapX, mapY);
    }
    length() { return Math.hypot(this.measured[1][0] - this.measured[0][0], this.measured[1][1] - this.measured[0][1]); }
    marks() { return (this.value.layers || []).filter((layer) => this.kept[layer.name].shown).flatMap((layer) => layer.marks || []); }
    onWedge(x, y) {
      if (!this.place || !this.camera) return false;
      const [px, py] = this.toScreen(this.place), away = Math.hypot(x - px, y - py), [middle, opening] = this.wedge;
      const off = (bearing) => Math.abs(wrap(Math.atan2(x - px, py - y) / RADIANS - bearing));
      return away > 8 && away < WEDGE + 14 && (off(middle) < opening / 2 || off(this.look) < 12);
    }
  }
  window.SceneParts = { Scene, wrap, clamp, photoRay, photoPlace, RADIANS, WEDGE, YELLOW, NAMES };
  window.openScene = (element, props, trigger, watch) => {
    const scene = (element.scene = new Scene(element, trigger));
    watch("value", () => scene.show(props.value));
    scene.show(props.value);
  };
})();
