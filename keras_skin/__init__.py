"""Skin-lesion segmentation and diagnosis in Keras. Research software, not a medical device."""

__version__ = "0.1.0"
