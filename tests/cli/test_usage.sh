#!/bin/sh
# Words the program does not understand: CL-01 ... CL-10 of the command line.
. "$(dirname "$0")/lib.sh"

expect CL-01 2 'expected a command' "$credence"
expect CL-01 2 'did you mean tokenize' "$credence" tokenise
expect CL-01 2 'unknown command "nonsense"' "$credence" nonsense
expect CL-01 2 'expected a command, got "--cpu"' "$credence" --cpu avx2 cpu
expect CL-01 2 'did you mean --threads' "$credence" cpu --thread 2
expect CL-01 2 'did you mean --threads' "$credence" cpu --thraeds=2
expect CL-01 2 'unknown flag --zzz' "$credence" cpu --zzz
expect CL-01 2 'unknown flag -z' "$credence" cpu -z
expect CL-01 2 'does not take --rank' "$credence" cpu --rank 8
expect CL-01 2 'unexpected argument "x"' "$credence" cpu x
expect CL-01 2 'unknown flag .*x1b' "$credence" cpu "$(printf -- '--\033[31mred')"

expect CL-02 2 '--threads needs a value' "$credence" cpu --threads
expect CL-02 2 '--threads needs a value' "$credence" cpu -t
expect CL-02 2 '--threads is given twice' "$credence" cpu --threads 1 -t 1
expect CL-02 2 '--quiet is given twice' "$credence" cpu --quiet --quiet
expect CL-02 2 '--quiet takes no value' "$credence" cpu --quiet=yes
expect CL-02 2 '--threads: expected' "$credence" cpu --threads=
expect CL-02 2 '--config: expected' "$credence" cpu --config ''
expect CL-02 2 '--model FILE.gguf is missing' "$credence" tokenize

for value in 0 -1 1000000000 4x 1.5 ' 4' 0x4 +4 99999999999999999999; do
    expect CL-03 2 '--threads: expected a whole number from 1 to 1024' "$credence" cpu --threads "$value"
done
for value in -1 4294967296 abc; do
    expect CL-09 2 '--seed: expected a whole number' "$credence" cpu --seed "$value"
done
expect CL-09 0 '' "$credence" cpu --seed 4294967295
for value in 0 1X x 8GG '8  GB' -1G 1e3 nan; do
    expect CL-10 2 '--memory: expected a size' "$credence" eval -m absent -d absent --memory "$value"
done
for value in 8g '8 GB' 2.5G 800MiB 1K 10T 4096; do
    expect CL-10 4 'absent: cannot open' "$credence" eval -m absent -d absent --memory "$value"
done
for command in cpu info data tokenize export compare; do
    expect memory 2 'does not take --memory' "$credence" $command --memory 8G
done
expect CL-10 2 'comma list of dispatch|time' "$credence" cpu --verbose time,speed

expect tier 2 '--cpu: .*avx9.*scalar' "$credence" cpu --cpu avx9
expect tier 2 'CREDENCE_CPU: ' env CREDENCE_CPU=avx9 "$credence" cpu
expect tier 0 '' env CREDENCE_CPU=avx9 "$credence" cpu --cpu scalar
check tier grep -q 'in use: scalar (capped' out
expect tier 0 '' env CREDENCE_CPU=scalar "$credence" cpu
check tier grep -q 'in use: scalar (capped' out
expect threads 0 '' env OMP_NUM_THREADS=1,2 "$credence" cpu # a list of nested levels: the outermost counts
check threads grep -q '^threads    1$' out
expect threads 0 '' "$credence" cpu -t1
check threads grep -q '^threads    1$' out
expect threads-by 0 '' "$credence" cpu --threads-by pool
expect threads-by 2 '--threads-by: expected one of openmp|pool, got "own"' "$credence" cpu --threads-by own

expect compare 4 'a.json' "$credence" compare a.json b.json
finish
