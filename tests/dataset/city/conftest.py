"""What tests of building a city share."""

import pytest
from tile_server import Server


@pytest.fixture
def server():
    served = Server()
    yield served
    served.close()
