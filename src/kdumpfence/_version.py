# SPDX-License-Identifier: LGPL-2.1-or-later
"""The version, alone in its file so that the build can read it without an import."""

__version__ = "0.1.0"
