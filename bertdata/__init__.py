"""bertdata: from a raw corpus to shards on which a BERT is pre-trained."""
