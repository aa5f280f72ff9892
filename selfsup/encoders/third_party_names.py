"""Names in checkpoints of other projects: where tensors are, which are the encoder's, and timm's.

The tables are by format; `third_party.py` applies them.
"""

import re

Rules = list[tuple[str, str]]
"""Pairs of a regular expression and its replacement, applied to a name in this order."""

LOCATIONS: dict[str, tuple[str, ...]] = {
    "lightly": ("state_dict",),
    "solo": ("state_dict",),
    "moco": ("state_dict", "model"),
    "dino": ("model",),
    "vissl": ("classy_state_dict.base_model.model.trunk", "model_state_dict", "model"),
    "mmselfsup": ("state_dict",),
    "timm": ("state_dict", "model"),
    "torchvision": ("model", "state_dict"),
    "efficientnet": ("state_dict",),
    "authors": ("teacher", "model", "state_dict", "module"),
}
"""The entries that may hold the trained network's tensors, with dots between nested entries. The
first that exists is used; without any, the top level of the file."""
TEACHER_LOCATIONS = {"dino": ("teacher",), "timm": ("state_dict_ema", "model_ema")}
STUDENT_LOCATIONS = {"dino": ("student",)}
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
    "authors": (),
}
"""Prefixes of the encoder's tensors, not of heads and queues; the first that occurs is used."""
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
OUTER_NAMES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.")
"""Names of networks inside others, which the names of all tensors of a file may begin with."""
WRAPPER_PREFIXES = (
    *("vit.", "_model.", "_features."),
    *("wrapped_model._model.", "wrapped_model._features."),
)
"""Prefixes of further wrappers around the network, in lightly and lightly-train."""

SEQUENTIAL_RESNET: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 3}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
]
"""A torchvision ResNet whose children are in an nn.Sequential: names start with their position."""
SMALL_SEQUENTIAL_RESNET: Rules = [
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{i + 1}\.(?=\d)", f"layer{i}.") for i in (1, 2, 3, 4)),
    (r"\.shortcut\.", ".downsample."),
]
"""Lightly's ResNet for small images in an nn.Sequential: it has no pooling, so positions differ."""
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
"""Torchvision's vision transformers; its ResNets have timm's names already. Two of the rules also
apply to VISSL's transformers."""
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
"""Vision transformers of MMSelfSup and MMPretrain."""
DINOV2: Rules = [
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
"""DINOv2's vision transformers: blocks in chunks, and other names in SwiGLU layers."""
RULES: dict[str, Rules] = {
    "lightly": TORCHVISION,
    "solo": [],
    "moco": [],
    "dino": DINOV2,
    "vissl": TORCHVISION,
    "mmselfsup": MM,
    "timm": [],
    "torchvision": TORCHVISION,
    "efficientnet": [],  # renamed later, since its rules depend on the timm model
    "authors": [],  # likewise
}
EFFICIENTNET: Rules = [
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"\._depthwise_conv\.", ".conv_dw."),
    (r"\._se_reduce\.", ".se.conv_reduce."),
    (r"\._se_expand\.", ".se.conv_expand."),
]
"""EfficientNet-PyTorch's layers outside of blocks: see `_rename_efficientnet`."""
INVERTED_RESIDUAL: Rules = [
    (r"\._expand_conv\.", ".conv_pw."),
    (r"\._project_conv\.", ".conv_pwl."),
    (r"\._bn0\.", ".bn1."),
    (r"\._bn1\.", ".bn2."),
    (r"\._bn2\.", ".bn3."),
]
"""Layers of an inverted bottleneck with an expansion convolution."""
MOBILENET_EXPANDING: Rules = [
    (r"\.conv\.0\.0\.", ".conv_pw."),
    (r"\.conv\.0\.1\.", ".bn1."),
    (r"\.conv\.1\.0\.", ".conv_dw."),
    (r"\.conv\.1\.1\.", ".bn2."),
    (r"\.conv\.2\.", ".conv_pwl."),
    (r"\.conv\.3\.", ".bn3."),
]
"""Layers of a block of torchvision's MobileNetV2 with an expansion convolution."""
MOBILENET_PLAIN: Rules = [
    (r"\.conv\.0\.0\.", ".conv_dw."),
    (r"\.conv\.0\.1\.", ".bn1."),
    (r"\.conv\.1\.", ".conv_pw."),
    (r"\.conv\.2\.", ".bn2."),
]
"""Layers of its first block, which has none."""
DEPTHWISE_SEPARABLE: Rules = [
    (r"\._project_conv\.", ".conv_pw."),
    (r"\._bn1\.", ".bn1."),
    (r"\._bn2\.", ".bn2."),
]
"""Layers of a block without an expansion convolution."""

HEAD = re.compile(
    r"(?:fc|heads?|classifier|head_dist|prototypes|linear|mask_token|decoder\w*|queue\w*"
    r"|projection_head|projector|predictor|mlp_head|projectors|(?:dino|ibot)_head)\b"
)
"""Start of the names of heads, decoders and mask tokens, which an encoder does not have. A tensor
of the encoder may begin so, too (`head.norm`): what the network has is never taken for a head."""
BUFFERS = re.compile(r"(?:num_batches_tracked|relative_position_index|attn_mask)$")
"""End of the names of tensors that follow from the network's settings and are not trained."""
LAST_NORMS = ("norm.", "norms.", "norm_head.", "encoder_norm.")
"""Prefixes of the norm after pooling in original files of networks for which timm's is
`head.norm.`: ConvNeXt, DaViT, TinyViT, Hiera."""
