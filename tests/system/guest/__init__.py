"""Tests under another kernel, in a guest that has netem and VRFs, and a clock to be set."""
