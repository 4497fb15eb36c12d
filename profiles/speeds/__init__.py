"""Speed facts of device classes as data."""
