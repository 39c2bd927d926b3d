"""What the papers report after the fifth snapshot: MRR, Hits@1, Hits@10 (None: not reported). LKGE's protocol and code:
old candidates only, valid facts not filtered; the released code chooses the epoch on the test set.

Baselines and LKGE: Cui et al. 2023, as repeated by Liu et al. 2024 (IncDE); FastKGE: Liu et al. 2024."""

from __future__ import annotations

Row = tuple[float | None, float | None, float | None]

PUBLISHED: dict[str, dict[str, Row]] = {
    "ENTITY": {
        "finetune": (0.165, 0.085, 0.321), "retrain": (0.236, None, None), "snapshot": (0.084, None, None),
        "mean": (0.117, None, None), "lan": (0.141, None, None), "pnn": (0.229, 0.130, 0.425),
        "cwr": (0.088, 0.028, 0.202), "si": (0.154, 0.072, 0.311), "ewc": (0.229, 0.130, 0.423),
        "emr": (0.171, 0.090, 0.330), "gem": (0.165, 0.085, 0.321), "lkge": (0.234, 0.136, 0.425),
        "fastkge": (0.239, None, None), "incde": (0.253, 0.151, 0.448),
    },
    "RELATION": {
        "finetune": (0.093, 0.039, 0.195), "retrain": (0.219, None, None), "snapshot": (0.021, None, None),
        "mean": (0.039, None, None), "lan": (0.052, None, None), "pnn": (0.167, 0.096, 0.305),
        "cwr": (0.021, 0.010, 0.043), "si": (0.113, 0.055, 0.224), "ewc": (0.165, 0.093, 0.306),
        "emr": (0.111, 0.052, 0.225), "gem": (0.093, 0.040, 0.196), "lkge": (0.192, 0.106, 0.366),
        "fastkge": (0.185, None, None), "incde": (0.199, 0.111, 0.370),
    },
    "FACT": {
        "finetune": (0.172, 0.090, 0.339), "retrain": (0.206, None, None), "snapshot": (0.082, None, None),
        "mean": (0.084, None, None), "lan": (0.106, None, None), "pnn": (0.157, 0.084, 0.290),
        "cwr": (0.083, 0.030, 0.192), "si": (0.172, 0.088, 0.343), "ewc": (0.201, 0.113, 0.382),
        "emr": (0.171, 0.090, 0.337), "gem": (0.175, 0.092, 0.345), "lkge": (0.210, 0.122, 0.387),
        "fastkge": (0.203, None, None), "incde": (0.216, 0.128, 0.391),
    },
    "HYBRID": {
        "finetune": (0.135, 0.069, 0.262), "retrain": (0.227, None, None), "snapshot": (0.036, None, None),
        "mean": (0.046, None, None), "lan": (0.059, None, None), "pnn": (0.185, 0.101, 0.349),
        "cwr": (0.037, 0.015, 0.077), "si": (0.111, 0.049, 0.229), "ewc": (0.186, 0.102, 0.350),
        "emr": (0.141, 0.073, 0.267), "gem": (0.136, 0.070, 0.263), "lkge": (0.207, 0.121, 0.379),
        "fastkge": (0.211, None, None), "incde": (0.224, 0.131, 0.401),
    },
}  # fmt: skip
