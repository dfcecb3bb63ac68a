# SPDX-License-Identifier: Apache-2.0
"""Events recorded, throttled, stored and queried; what events there are is in base.events."""
