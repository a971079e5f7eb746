#!/usr/bin/env bash
# schemathesis on every operation of /openapi.json: fuzz.sh http://127.0.0.1:PORT [EXAMPLES] [PYTHON]
#
# Left out: the check that every body the schema allows is accepted, because no schema can say that text is a picture.
set -euo pipefail
# It leaves a folder where it runs.
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT
cd "$desk"
"${3:-python3}" -m schemathesis.cli run "$1/openapi.json" --url "$1" --max-examples "${2:-10}" --workers 1 --seed 1 \
    --exclude-checks positive_data_acceptance \
    --request-timeout 60 --continue-on-failure
