"""Real data from packages that are already on disk, or of the user's: nothing is downloaded."""

from tfbig.data.breast_cancer import Split, breast_cancer
from tfbig.data.byte_bpe import train_byte_bpe
from tfbig.data.compression import bits_per_byte, gzip_bits_per_byte, xz_bits_per_byte
from tfbig.data.conversations import (
    EncodedConversations,
    conversation_rows,
    encode_conversations,
    read_conversations,
)
from tfbig.data.documents import (
    Documents,
    DocumentSplit,
    folder_documents,
    python_documents,
    split_documents,
)
from tfbig.data.packing import evaluation_rows, packed, steps_per_epoch
from tfbig.data.rows import TokensInMemory
from tfbig.data.shards import write_shards
from tfbig.data.token_shards import TokenShards

__all__ = [
    "DocumentSplit",
    "Documents",
    "EncodedConversations",
    "Split",
    "TokenShards",
    "TokensInMemory",
    "bits_per_byte",
    "breast_cancer",
    "conversation_rows",
    "encode_conversations",
    "evaluation_rows",
    "folder_documents",
    "gzip_bits_per_byte",
    "packed",
    "python_documents",
    "read_conversations",
    "split_documents",
    "steps_per_epoch",
    "train_byte_bpe",
    "write_shards",
    "xz_bits_per_byte",
]
