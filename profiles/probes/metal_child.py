"""Prints Metal's recommendedMaxWorkingSetSize in bytes; runs as a child, through the Objective-C runtime."""

import ctypes
import sys


def main() -> int:
    """Print the number, or say why there is none and return 1."""
    if sys.platform != "darwin":
        sys.stderr.write("Metal exists on macOS only\n")
        return 1
    framework = ctypes.CDLL("/System/Library/Frameworks/Metal.framework/Metal")
    runtime = ctypes.CDLL("/usr/lib/libobjc.A.dylib")
    framework.MTLCreateSystemDefaultDevice.restype = ctypes.c_void_p
    device = framework.MTLCreateSystemDefaultDevice()
    if not device:
        sys.stderr.write("Metal has no device here (a virtual machine, or no window session)\n")
        return 1
    runtime.sel_registerName.restype = ctypes.c_void_p
    runtime.sel_registerName.argtypes = [ctypes.c_char_p]
    selector = runtime.sel_registerName(b"recommendedMaxWorkingSetSize")
    send = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(("objc_msgSend", runtime))
    sys.stdout.write(str(send(device, selector)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
