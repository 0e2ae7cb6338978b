#!/usr/bin/env bash
# Builds the fuzz targets with stable Rust, runs each for some seconds, two at a time, and counts.
#
#     fuzz/run.sh SECONDS [TARGET...]     findings fail it, and stay in target/fuzz/findings
#     fuzz/run.sh keep [TARGET...]        makes the committed corpora anew, with what was found, minimised
#
# FUZZ_JOBS says how many run at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

out=target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
programs=$out/$host/fuzz

# What one input may take: megabytes in memory, megabytes of addresses (no single allocation can be larger, touched
# or not), seconds.
rss=512 addresses=256 timeout=10

# What is committed of a corpus: files, bytes in all, bytes a file.
files_max=50 corpus_max=200000 file_max=4096

build() {
    # As cargo-fuzz does it, without its sanitizers, which need a nightly toolchain. `--target` keeps
    # the flags from build scripts.
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares" \
        cargo build --quiet --package thinwire-fuzz --bins --profile fuzz --target "$host" \
        --target-dir "$out"
}

# Runs one target on what is committed and on what was found before.
fuzz() {
    local target=$1 log=$out/log/$1 dictionary=fuzz/dictionaries/$1 options=()
    mkdir -p "$out/corpus/$target" "fuzz/corpus/$target"
    if [ -f "$dictionary" ]; then options+=("-dict=$dictionary"); fi
    ulimit -v $((addresses * 1024))
    MALLOC_ARENA_MAX=1 "$programs/$target" "${options[@]}" \
        -max_total_time="$seconds" -max_len="$file_max" -timeout="$timeout" \
        -rss_limit_mb="$rss" -malloc_limit_mb=64 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$out/findings/$target-" \
        "$out/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1 || true
    # A run that ended without a finding says so last.
    if grep -q '^Done [0-9]* runs' "$log"; then
        awk -v target="$target" '
            /^stat::number_of_executed_units/ { executions = $2 }
            /^stat::average_exec_per_sec/ { speed = $2 }
            END { printf "%-10s %12d executions %9d a second\n", target, executions, speed }
        ' "$log" | tee "$log.count"
    else
        echo "$target: a finding; the end of $log:" >&2
        tail -n 30 "$log" >&2
        return 1
    fi
}

# Merges what was found into what is committed: the smallest inputs that reach as much, within bounds.
keep() {
    local target=$1 merged
    merged=$(mktemp -d)
    mkdir -p "$out/corpus/$target" "fuzz/corpus/$target"
    "$programs/$target" -set_cover_merge=1 -max_len="$file_max" "$merged" "fuzz/corpus/$target" \
        "$out/corpus/$target" >"$out/log/$target.merge" 2>&1
    rm -rf "fuzz/corpus/$target"
    mkdir -p "fuzz/corpus/$target"
    # Evenly through the sizes, so that neither the shallow nor the deep ones are lost.
    find "$merged" -type f -printf '%s %f\n' | sort -n | awk -v files="$files_max" '
        { line[NR] = $0 }
        END {
            step = NR > files ? NR / files : 1
            for (at = step; at < NR + 0.5; at += step) print line[int(at)]
        }
    ' | while read -r size name; do
        total=$((${total:-0} + size))
        if ((total > corpus_max)); then break; fi
        cp "$merged/$name" "fuzz/corpus/$target/"
    done
    rm -rf "$merged"
    echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs"
}

[ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
what=$1
shift
mapfile -t targets < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else
    find fuzz/fuzz_targets -name '*.rs' -printf '%f\n' | sed 's/\.rs$//' | sort
fi)
mkdir -p "$out/log" "$out/findings"
build
if [ "$what" = keep ]; then
    for target in "${targets[@]}"; do keep "$target"; done
    exit
fi

seconds=$what
rm -f "$out"/log/*.count
failed=0 running=0
for target in "${targets[@]}"; do
    if ((running >= ${FUZZ_JOBS:-2})); then wait -n || failed=1; else ((running += 1)); fi
    fuzz "$target" &
done
for _ in $(seq "$running"); do wait -n || failed=1; done
awk '{ total += $2 } END { printf "%-10s %12d executions\n", "in all", total }' "$out"/log/*.count
if ((failed)); then
    echo "There are findings in $out/findings; each replays with $programs/TARGET FILE." >&2
fi
exit "$failed"
