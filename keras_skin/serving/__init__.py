"""An exported model behind one local page and TensorFlow Serving's REST interface."""
