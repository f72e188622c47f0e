"""Old and published spellings of keys, read everywhere: files, checkpoints, command lines."""

# Old -> new.
ALIASES = {
    "loss.expert": "mote.expert",
    "loss.merged": "mote.merged",
    "loss.feature_mse": "mote.feature_mse",
    "network.merge_temperatures": "mote.merge_temperatures",
    "eval.modulation": "mote.modulation",
    "eval.modulation_classes": "mote.modulation_classes",
    "eval.modulation_temperature": "mote.modulation_temperature",
    "solver.expert_draws": "solver.draws",
    "network.grad_checkpointing": "network.recompute",
}
# What values of old spellings are in the new ones, where these have other values.
ALIAS_VALUES = {"network.grad_checkpointing": {"True": "full", "False": ""}}
# Published keys without effect there: they load, with one warning.
DEAD_KEYS = (
    "data.seg_length", "network.drop", "network.n_emb", "network.type", "solver.epoch_offset",
)  # fmt: skip
# Published keys with one meaningful value here.
FIXED_KEYS = {"network.interaction": "DP"}
NULL_MEANS = {"network.sim_header": "None"}  # as some published files have it; elsewhere null keeps the default
