"""Views as the papers have them, at the sizes of a ResNet-18 on one GPU, and views of domains."""

from dataclasses import replace

from selfsup.config.views import LocalViewsConfig, SecondViewConfig, ViewsConfig

SIMCLR = ViewsConfig(strength=0.5)
"""Chen et al. 2020, at half strength as for CIFAR-10 (appendix B.9)."""

MOCO = ViewsConfig(area=(0.2, 1.0), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
"""MoCo v2 and SimSiam (Chen et al. 2020, 2021)."""

BYOL = ViewsConfig(
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    blur=1.0,
    second=SecondViewConfig(blur=0.1, solarize=0.2),
)
"""Two different distributions of views (Grill et al. 2020, appendix B); also of Barlow Twins,
VICReg and TiCo."""

MOCO_V3 = replace(BYOL, area=(0.2, 1.0))
"""BYOL's with larger crops (Chen et al. 2021)."""

SWAV = ViewsConfig(area=(0.14, 1.0), local=LocalViewsConfig(views=4, area=(0.05, 0.14), blur=0.5))
"""Multi-crop (Caron et al. 2020): 2 x 224 and 6 x 96 in the paper."""

DINO = replace(BYOL, area=(0.4, 1.0), local=LocalViewsConfig(views=4, area=(0.05, 0.4), blur=0.5))
"""Multi-crop (Caron et al. 2021): 2 x 224 and 8 x 96 in the paper."""

DINOV2 = replace(DINO, area=(0.32, 1.0), local=replace(DINO.local, area=(0.05, 0.32)))
"""Multi-crop (Oquab et al. 2023): 2 x 224 and 8 x 96 in the paper."""

MAE = ViewsConfig(views=1, area=(0.2, 1.0), jitter=0.0, grey=0.0, blur=0.0)
"""Crops and flips alone (He et al. 2022): masks are change enough."""

LEJEPA = ViewsConfig(
    area=(0.3, 1.0),
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    solarize=0.2,
    local=LocalViewsConfig(views=4, area=(0.05, 0.3), blur=0.5, solarize=0.2),
)
"""Multi-crop (Balestriero & LeCun 2025): 2 x 224 and 6 x 98 in the paper."""

DISTIL = replace(SIMCLR, views=1, area=(0.5, 1.0), strength=0.25)
"""One view, which stays near the whole image: that is what the teacher has seen. On CIFAR-10 better
than SimCLR's views, and than two views of half as many images (recipes/README.md)."""

FINETUNE = ViewsConfig(views=1, area=(0.5, 1.0), strength=0.25, grey=0.0, blur=0.0)
"""One weakly augmented view, for training with labels."""

FACTORY = ViewsConfig(
    area=(0.5, 1.0),
    quarter_turn=0.5,
    brightness=0.3,
    contrast=0.3,
    saturation=0.1,
    hue=0.02,
    grey=0.0,
    blur=0.2,
    sigma=(0.1, 1.0),
    kornia="{RandomMotionBlur: {kernel_size: 3, angle: 180.0, direction: 1.0, p: 0.2}, "
    "RandomLinearIllumination: {gain: [0.01, 0.15], p: 0.3}}",
)
"""Parts before a fixed camera. They lie in any direction, and lamps and exposure vary; but the
defect is small and colour tells materials apart, so crops stay large, hue nearly still, and blur
weaker than a scratch is wide."""

MICROSCOPY = ViewsConfig(
    area=(0.3, 1.0),
    ratio=(0.9, 1.1),
    quarter_turn=0.75,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.05,
    grey=0.0,
    blur=0.3,
    sigma=(0.1, 1.5),
    kornia="{RandomElasticTransform: {kernel_size: [15, 15], sigma: [4, 4], alpha: [0.3, 0.3], "
    "padding_mode: reflection, p: 0.2}, RandomGaussianNoise: {std: 0.02, p: 0.3}}",
)
"""Cells and tissue have no up, focus drifts, sensors are noisy and tissue bends; stains vary a
little between laboratories, while their colour carries the answer. Shapes are kept: nearly square
crops of a third and more."""

SATELLITE = ViewsConfig(
    area=(0.2, 1.0),
    quarter_turn=0.75,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.05,
    grey=0.0,
    blur=0.3,
    kornia="{RandomPlasmaShadow: {shade_intensity: [-0.4, 0.0], shade_quantity: [0.0, 0.4], "
    "p: 0.2}}",
)
"""Seen from above there is no up, and clouds throw shadows; sun and haze change brightness and
contrast. Colour tells crops from water, so it is never dropped."""

MEDICAL_GREY = ViewsConfig(
    area=(0.5, 1.0),
    flip=0.0,
    rotate=0.5,
    degrees=10.0,
    brightness=0.3,
    contrast=0.3,
    saturation=0.0,
    hue=0.0,
    grey=0.0,
    blur=0.2,
    sigma=(0.1, 1.0),
    kornia="{RandomGamma: {gamma: [0.8, 1.25], p: 0.3}, RandomGaussianNoise: {std: 0.02, p: 0.2}}",
    mean=(0.5,),
    std=(0.25,),
)
"""X-rays, CT and MRI in one channel. Left and right differ (a heart lies on one side): no flip.
Patients are turned by a few degrees at most; windows and doses change gamma, contrast and noise."""

DOCUMENTS = ViewsConfig(
    area=(0.4, 1.0),
    ratio=(0.6, 1.6),
    flip=0.0,
    rotate=0.3,
    degrees=3.0,
    brightness=0.3,
    contrast=0.4,
    saturation=0.2,
    hue=0.02,
    grey=0.3,
    blur=0.2,
    sigma=(0.1, 1.0),
    kornia="{RandomPerspective: {distortion_scale: 0.1, p: 0.3}, "
    "RandomLinearIllumination: {gain: [0.01, 0.2], p: 0.3}}",
)
"""Pages that are scanned or photographed. Mirrored text is no text: no flip. Scans are a little
skewed, photographs in perspective and lit from one side; layout is seen in large crops."""

REID = replace(
    FINETUNE,
    area=(0.7, 1.0),
    strength=1.0,
    brightness=0.2,
    contrast=0.15,
    saturation=0.0,
    hue=0.0,
    jitter=0.5,
    erase=0.5,
)
"""People and vehicles across cameras: random erasing for what hides them (Zhong et al. 2017) and
exposure between cameras; the colours of clothes and paint are the evidence and stay."""

PIPELINES = {
    "simclr": SIMCLR,
    "moco": MOCO,
    "byol": BYOL,
    "moco-v3": MOCO_V3,
    "swav": SWAV,
    "dino": DINO,
    "dinov2": DINOV2,
    "mae": MAE,
    "lejepa": LEJEPA,
    "distil": DISTIL,
    "finetune": FINETUNE,
    "factory": FACTORY,
    "microscopy": MICROSCOPY,
    "satellite": SATELLITE,
    "medical-grey": MEDICAL_GREY,
    "documents": DOCUMENTS,
    "reid": REID,
}
"""Every pipeline by the name that a command line gives it."""
