#!/bin/sh
# Installs the service into /opt/harness from a checkout, on a machine or in an image that has Python 3.11 or newer.
#
#   sh examples/service/install.sh CHECKOUT
set -eu
checkout=${1:?the checkout}
python3 -m venv /opt/harness
# Versions decide about scores, so they are the pinned ones.
/opt/harness/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    -c "$checkout/constraints.txt" "$checkout[service,postgres,sandbox]"
getent passwd harness >/dev/null || useradd --system --create-home --home-dir /var/lib/harness harness
/opt/harness/bin/harness tracks >/dev/null
