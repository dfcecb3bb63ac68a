# SPDX-License-Identifier: Apache-2.0
"""What every wing stands on and which knows none of them."""
