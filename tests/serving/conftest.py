"""Two exports behind the application: one without and one with clinical fields."""

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from keras_skin.serving.app import create_app
from keras_skin.serving.attributions import RunExtras, open_extras
from keras_skin.serving.served import Served
from keras_skin.workflow.prediction import open_exported


@pytest.fixture(scope="session")
def lesion():
    """PNG bytes of a dark ellipse on skin, 60 x 90 pixels."""
    image = np.full((60, 90, 3), (150, 180, 220), np.uint8)
    cv2.ellipse(image, (45, 30), (22, 15), 20, 0, 360, (40, 60, 90), -1)
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="session")
def plain(tiny_run):
    return Served(open_exported(tiny_run))


@pytest.fixture(scope="session")
def clinical(clinical_run):
    return Served(open_exported(clinical_run))


@pytest.fixture(scope="session")
def clinical_extras(clinical_run, clinical):
    return open_extras(clinical_run, clinical.model)


@pytest.fixture(scope="session")
def plain_client(plain):
    with TestClient(create_app(plain, RunExtras())) as client:
        yield client


@pytest.fixture(scope="session")
def clinical_client(clinical, clinical_extras):
    with TestClient(create_app(clinical, clinical_extras)) as client:
        yield client
