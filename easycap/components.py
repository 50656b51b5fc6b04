"""The built-in components: importing a module registers what it defines.

A new component needs a line here, its own file, and its YAML in conf/.
"""

# ruff: noqa: F401
import easycap.conditioning.conditions
import easycap.conditioning.draft_from_run
import easycap.conditioning.draft_sources
import easycap.conditioning.tags
import easycap.data.folder
import easycap.data.huggingface
import easycap.data.scenes.source
import easycap.data.shards.webdataset_source
import easycap.data.table_source
import easycap.generation.beam
import easycap.generation.consensus
import easycap.generation.diverse_beam
import easycap.generation.generate
import easycap.generation.greedy
import easycap.generation.sample
import easycap.models.decoders.att2in2
import easycap.models.decoders.attention_lstm
import easycap.models.decoders.causal_lm
import easycap.models.decoders.lstm
import easycap.models.decoders.m2
import easycap.models.decoders.transformer
import easycap.models.decoders.updown
import easycap.models.encoders.precomputed
import easycap.models.encoders.regions
import easycap.models.encoders.small
import easycap.models.encoders.timm
import easycap.models.huggingface.whole_captioner
import easycap.models.image_tokens.grid
import easycap.models.image_tokens.mapper
import easycap.models.image_tokens.mlp
import easycap.models.image_tokens.resampler
import easycap.models.image_tokens.split
import easycap.models.tag_model
import easycap.models.taggers.cnn
import easycap.models.taggers.lstm
import easycap.objectives.scheduled_sampling
import easycap.objectives.scst
import easycap.objectives.xe
import easycap.runs.mlflow_tracker
import easycap.runs.tensorboard_tracker
import easycap.runs.trackers
import easycap.runs.wandb_tracker
import easycap.sweeps.launchers
import easycap.sweeps.slurm
import easycap.training.optim
import easycap.training.schedule
import easycap.training.trainer_config
import easycap.training.validation
import easycap.vocab.bert
import easycap.vocab.gpt2
import easycap.vocab.pretrained
import easycap.vocab.tags
import easycap.vocab.word
