# SPDX-License-Identifier: Apache-2.0
"""Events kept, throttled, queried; the vocabulary is in events."""
