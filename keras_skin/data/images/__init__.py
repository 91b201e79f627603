"""Image files to integer RGB of the model's size."""
