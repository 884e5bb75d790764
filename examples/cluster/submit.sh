#!/bin/bash
# Runs the cells of `harness plan` on a Slurm cluster, several short cells in each job.
#
#   harness plan submissions/ajo submissions/bbt --track official > cells.txt
#   bash examples/cluster/submit.sh cells.txt 10 --track official      # ten cells a job
#   harness merge cells/*.db --into results/harness.db                 # when the jobs have ended
#
# Arguments after the second go to `harness evaluate`: give what was given to `harness plan`. Each job has a database of
# its own. A job that was ended and is queued again goes on where it was, so a short time limit loses one cell at most.
# SBATCH_OPTIONS="--gres=gpu:1 --time=2:00:00" adds options of sbatch.
set -euo pipefail
cells=${1:?cells.txt of harness plan} each=${2:?cells in a job}
shift 2
[[ $each =~ ^[1-9][0-9]*$ ]] || { echo "$each cells in a job: a number of at least 1 is needed" >&2; exit 2; }
count=$(grep -c . "$cells") || { echo "$cells has no cells" >&2; exit 2; }
jobs=$(((count + each - 1) / each))
mkdir -p cells
script=$(mktemp cells/job-XXXXXX)
printf '#!/bin/bash\n#SBATCH --requeue\nset -u\nfailed=0\n' > "$script"
printf 'export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}\n' >> "$script"
printf 'while IFS= read -r cell; do\n  harness evaluate --cell "$cell" --store "cells/$SLURM_ARRAY_TASK_ID.db"' >> "$script"
printf ' %q' "$@" >> "$script"
printf ' < /dev/null || failed=1\ndone < <(grep . %q | sed -n "$(((SLURM_ARRAY_TASK_ID - 1) * %d + 1)),$((SLURM_ARRAY_TASK_ID * %d))p")\nexit $failed\n' \
    "$cells" "$each" "$each" >> "$script"
# shellcheck disable=SC2086 # options are words
sbatch --job-name=harness --array="1-$jobs" --cpus-per-task="${CPUS:-4}" ${SBATCH_OPTIONS:-} "$script"
echo "$count cells in $jobs jobs of up to $each; their databases are cells/1.db to cells/$jobs.db"
