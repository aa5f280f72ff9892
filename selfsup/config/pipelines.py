"""Views as the papers have them, at the sizes of a ResNet-18 on one GPU."""

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
"""Views made differently (Grill et al. 2020, appendix B); also of Barlow Twins, VICReg, TiCo."""

MOCO_V3 = replace(BYOL, area=(0.2, 1.0))
"""BYOL's with larger crops (Chen et al. 2021)."""

SWAV = ViewsConfig(area=(0.14, 1.0), local=LocalViewsConfig(views=4, area=(0.05, 0.14), blur=0.5))
"""Multi-crop (Caron et al. 2020): 2 x 224 and 6 x 96 in the paper."""

DINO = replace(BYOL, area=(0.4, 1.0), local=LocalViewsConfig(views=4, area=(0.05, 0.4), blur=0.5))
"""Multi-crop (Caron et al. 2021): 2 x 224 and 8 x 96 in the paper."""

WEAK = ViewsConfig(area=(0.2, 1.0), jitter=0.0, grey=0.0, blur=0.0)
"""A crop and a flip, for a target that should see the image as it is."""

FINETUNE = ViewsConfig(size=96, views=1, area=(0.5, 1.0), strength=0.25, grey=0.0, blur=0.0)
"""One gentle view, where labels say what belongs together."""

REID = replace(FINETUNE, area=(0.7, 1.0), strength=0.0, jitter=0.0, erase=0.5)
"""For people and vehicles: random erasing (Zhong et al. 2017), and colours as they are."""

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
