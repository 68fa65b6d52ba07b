"""What devices could do at most: bfloat16 matrix products per second, dense, by JAX's name of the device.

Sources: TPU, Google Cloud's pages "TPU v4", "TPU v5p", "TPU v5e", "TPU v6e" (per chip; JAX shows one device a
chip there, of v4 and v5p in its megacore form). GPU, NVIDIA's data sheets of A100 (2021), H100 (2023) and
H200 (2024); where a sheet prints the figure "with sparsity", half of it.
"""

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,  # SXM
    "NVIDIA H100 SXM": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Of a device such as 'NVIDIA A100-SXM4-80GB' or 'TPU v5 lite'; None for one that is not in the table.

    GPUs go by the longest name that theirs begins with, because memory sizes and boards follow it.
    """
    if device_kind in PEAK_FLOPS:
        return PEAK_FLOPS[device_kind]
    begun = [name for name in PEAK_FLOPS if name.startswith("NVIDIA") and device_kind.startswith(name)]
    return PEAK_FLOPS[max(begun, key=len)] if begun else None
