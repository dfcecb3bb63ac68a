# SPDX-License-Identifier: Apache-2.0
"""`python3 -m cc_sammy.cli`: the `sammy` command from a source tree."""

import sys

from cc_sammy.cli.main import main

sys.exit(main())
