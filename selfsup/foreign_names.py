"""What other projects call the tensors of their checkpoints, and where they keep them.

From each project's source: lightly's and lightly-train's examples, solo-learn's `methods/base.py`,
MoCo's `builder.py` and MoCo v3's `vits.py`, DINO's and DINOv2's training and hub files, VISSL's
trunks, MMSelfSup and MMPretrain, torchvision's models, EfficientNet-PyTorch's `model.py`.
"""

Rules = list[tuple[str, str]]

PLACES: dict[str, tuple[str, ...]] = {
    "lightly": ("state_dict",),
    "solo": ("state_dict",),
    "moco": ("state_dict", "model"),
    "dino": ("model",),
    "vissl": ("classy_state_dict.base_model.model.trunk", "model_state_dict", "model"),
    "mmselfsup": ("state_dict",),
    "timm": ("state_dict", "model"),
    "torchvision": ("model", "state_dict"),
    "efficientnet": ("state_dict",),
}
"""Where a file keeps the trained network's tensors, if not at its top; the first that is there."""
TEACHER_PLACES = {"dino": ("teacher",), "timm": ("state_dict_ema", "model_ema")}
STUDENT_PLACES = {"dino": ("student",)}
PREFIXES: dict[str, tuple[str, ...]] = {
    "lightly": ("backbone.", "student_backbone.", "query_backbone."),
    "solo": ("backbone.", "encoder."),
    "moco": ("encoder_q.", "base_encoder."),
    "dino": ("backbone.",),
    "vissl": ("base_model._feature_blocks.", "_feature_blocks."),
    "mmselfsup": ("backbone.", "encoder_q.0.", "online_net.0.", "base_encoder.0."),
    "timm": (),
    "torchvision": (),
    "efficientnet": (),
}
"""Of the encoder among the rest of a method; the first that any tensor has."""
TEACHER_PREFIXES: dict[str, tuple[str, ...]] = {
    "lightly": ("teacher_backbone.", "backbone_momentum.", "backbone."),
    "solo": ("momentum_backbone.", "momentum_encoder."),
    "moco": ("encoder_k.", "momentum_encoder."),
    "mmselfsup": tuple(
        f"{name}.{inner}"
        for name in ("encoder_k", "target_net", "momentum_encoder")
        for inner in ("module.0.", "0.")
    ),
}
WITHIN = ("vit.", "_model.", "_features.", "wrapped_model._model.", "wrapped_model._features.")
"""What wraps the network once more, in lightly and lightly-train."""

SEQUENCE: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 3}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
]
"""A torchvision ResNet as nn.Sequential of its children."""
SHORT_SEQUENCE: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 1}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
    (r"\.shortcut\.", ".downsample."),
]
"""Lightly's small-image ResNet, the same way."""
TORCHVISION: Rules = [
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^(?:encoder\.)?pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
]
"""Its transformers; a ResNet's names are timm's. VISSL's transformers share two."""
MM: Rules = [
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^pre_norm\.", "norm_pre."),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
    (r"\.ffn\.gamma2\.weight$", ".ls2.gamma"),
    (r"\.ffn\.(?:layers\.0\.0|w12)\.", ".mlp.fc1."),
    (r"\.ffn\.(?:layers\.1|w3)\.", ".mlp.fc2."),
]
"""Transformers of MMSelfSup and MMPretrain."""
DINOV2: Rules = [
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
RULES: dict[str, Rules] = {
    "lightly": TORCHVISION,
    "solo": [],
    "moco": [],
    "dino": DINOV2,
    "vissl": TORCHVISION,
    "mmselfsup": MM,
    "timm": [],
    "torchvision": TORCHVISION,
    "efficientnet": [],
}
EFFICIENT: Rules = [
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"\._depthwise_conv\.", ".conv_dw."),
    (r"\._se_reduce\.", ".se.conv_reduce."),
    (r"\._se_expand\.", ".se.conv_expand."),
]
"""EfficientNet-PyTorch, but for the places and layers of its blocks, see `foreign`."""
WIDENED: Rules = [
    (r"\._expand_conv\.", ".conv_pw."),
    (r"\._project_conv\.", ".conv_pwl."),
    (r"\._bn0\.", ".bn1."),
    (r"\._bn1\.", ".bn2."),
    (r"\._bn2\.", ".bn3."),
]
"""Layers of a block that widens first."""
PLAIN: Rules = [(r"\._project_conv\.", ".conv_pw."), (r"\._bn1\.", ".bn1."), (r"\._bn2\.", ".bn2.")]
"""Layers of one that does not."""
