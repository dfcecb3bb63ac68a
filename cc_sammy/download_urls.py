# SPDX-License-Identifier: Apache-2.0
"""The only place that names where something is downloaded from; every entry is overridden by the configuration.

A checksum stands here only if one of us fetched the file and computed it. Node.js's could not be verified so: the
configuration gives it.
"""

# `nodejs.urls` overrides
NODEJS_ARCHIVES = ("https://nodejs.org/dist/v{version}/node-v{version}-linux-x64.tar.gz",)
# Path of a package's archive below the npm client's own registry; `devcontainer_cli.urls` overrides
DEVCONTAINER_ARCHIVE = "{registry}/@devcontainers/cli/-/cli-{version}.tgz"
# What Cloudflare says its networks are; `firewall.ranges_url` overrides
CLOUDFLARE_RANGES = "https://api.cloudflare.com/client/v4/ips"
