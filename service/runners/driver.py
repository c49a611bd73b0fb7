"""Whether this machine has a GPU: asked of the driver, so that nobody loads a runtime to find out."""

from __future__ import annotations

import ctypes


def finds_a_device() -> bool:
    """Whether NVIDIA's driver is there and sees a device."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False
