"""What tests of building a city share."""

import pytest
from tile_server import TileServer


@pytest.fixture
def server():
    served = TileServer()
    yield served
    served.close()
