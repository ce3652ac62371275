"""Small configs of BERT, RoBERTa, DistilBERT, ViT and CLIP that show what is peculiar to each.

Each row: an id, the class of the model and of the config in `transformers`, and the config's
arguments. The numbers are unequal wherever they may be, so that a swap has the wrong shape. Inputs:
token ids from 3 on (0 and 1 are padding, whose rows of the tables get no gradient in PyTorch); for
CLIP each row has the end token once, or the highest id where `eos_token_id` is 2.
"""

from typing import Any

_BERT: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}
_ROBERTA = {**_BERT, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
_DISTILBERT: dict[str, Any] = {
    "vocab_size": 99,
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 40,
}
_VIT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 12,
    "patch_size": 4,
}
_CLIP_TEXT = {**_BERT, "hidden_size": 24, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 98}
_CLIP = {
    "text_config": _CLIP_TEXT,
    "vision_config": {**_VIT, "num_hidden_layers": 3},
    "projection_dim": 20,
}
_OLD_CLIP = {**_CLIP, "text_config": {**_CLIP_TEXT, "eos_token_id": 2, "hidden_act": "gelu"}}

CONFIGS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("bert", "BertModel", "BertConfig", _BERT),
    ("bert-tokens", "BertForMaskedLM", "BertConfig", {**_BERT, "hidden_act": "gelu_new"}),
    ("bert-classes", "BertForSequenceClassification", "BertConfig", {**_BERT, "num_labels": 3}),
    ("roberta", "RobertaModel", "RobertaConfig", _ROBERTA),
    ("roberta-tokens", "RobertaForMaskedLM", "RobertaConfig", {**_ROBERTA, "hidden_act": "relu"}),
    (
        "roberta-classes",
        "RobertaForSequenceClassification",
        "RobertaConfig",
        {**_ROBERTA, "num_labels": 3},
    ),
    ("xlm-roberta", "XLMRobertaModel", "XLMRobertaConfig", _ROBERTA),
    ("distilbert", "DistilBertModel", "DistilBertConfig", _DISTILBERT),
    ("distilbert-tokens", "DistilBertForMaskedLM", "DistilBertConfig", _DISTILBERT),
    (
        "distilbert-classes",
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {**_DISTILBERT, "num_labels": 3, "activation": "relu"},
    ),
    ("vit", "ViTModel", "ViTConfig", _VIT),
    ("vit-classes", "ViTForImageClassification", "ViTConfig", {**_VIT, "num_labels": 3}),
    (
        "vit-no-bias",
        "ViTForImageClassification",
        "ViTConfig",
        {**_VIT, "qkv_bias": False, "num_channels": 1},
    ),
    ("clip", "CLIPModel", "CLIPConfig", _CLIP),
    ("clip-old", "CLIPModel", "CLIPConfig", _OLD_CLIP),
]
