"""The layers of the package. Every one can be saved in a Keras model and loaded again."""

from keras_skin.registry import lazy_names

_MODULES = {
    "AvailabilityMask": "availability",
    "BatchNormalization": "batch_normalization",
    "CBAM": "cbam",
    "ClassFrequencyClassifier": "class_frequency",
    "ClassToken": "class_token",
    "ColumnTokens": "column_tokens",
    "ContentAttention": "gated_positional_attention",
    "Enlargement": "enlargement",
    "FieldTokens": "field_tokens",
    "GatedPositionalAttention": "gated_positional_attention",
    "KnownFields": "availability",
    "LearnedEnlargement": "enlargement",
    "MetaBlock": "metablock",
    "MetaNet": "metanet",
    "MinMaxScaling": "min_max_scaling",
    "PositionEmbedding": "gated_positional_attention",
    "ReverseJointGate": "reverse_joint_gate",
    "VisualAttention": "visual_attention",
    "WindowAttention": "window_attention",
}
__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
