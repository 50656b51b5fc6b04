"""transformers' GPT-2 with the weights of ours, to compare with."""

from __future__ import annotations

import transformers

from easycap.models.decoders.gpt2_model import GPT2


def gpt2_of_transformers(lm: GPT2) -> transformers.GPT2LMHeadModel:
    """A copy, in evaluation mode and with plain attention."""
    own = lm.config
    config = transformers.GPT2Config(
        vocab_size=own.vocab_size,
        n_embd=own.hidden_size,
        n_layer=own.num_hidden_layers,
        n_head=own.num_attention_heads,
        n_positions=own.max_position_embeddings,
        n_inner=own.inner_size,
        layer_norm_epsilon=own.layer_norm_epsilon,
        resid_pdrop=own.dropout,
        embd_pdrop=own.dropout,
        attn_pdrop=own.dropout,
        activation_function="gelu_pytorch_tanh",
        attn_implementation="eager",
    )
    copy = transformers.GPT2LMHeadModel(config)
    copy.load_state_dict(lm.state_dict())
    return copy.eval()
