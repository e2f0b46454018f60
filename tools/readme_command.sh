#!/usr/bin/env bash
# Runs a command of the README exactly as it stands there, so that the README cannot drift:
#   tools/readme_command.sh NAME    runs the code block that follows the line <!-- command: NAME -->
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?usage: tools/readme_command.sh NAME}
command=$(awk -v mark="<!-- command: $name -->" '
    $0 == mark { found = 1; next }
    found && /^```/ { if (inside) exit; inside = 1; next }
    inside { print }' README.md)
if [ -z "$command" ]; then
    echo "README.md has no code block after <!-- command: $name -->" >&2
    exit 2
fi
printf '$ %s\n' "$command"
bash -euo pipefail -c "$command"
