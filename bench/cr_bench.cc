// The only C++ file: Google Benchmark behind cr_bench.h, and main.
#include "bench/cr_bench.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace
{

double median(std::vector<double> values)
{
    if (values.empty()) {
        return 0;
    }
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// One timed run between two calibration bursts.
struct Sample {
    double seconds, peak;
    bool steady;
};

Sample measure(const cr_bench_entry &entry, void *state)
{
    Sample sample;
    double before = cr_bench_peak(entry.unit);
    double start = cr_bench_now();
    entry.run(state);
    sample.seconds = cr_bench_now() - start;
    double after = cr_bench_peak(entry.unit);
    sample.peak = 0.5 * (before + after);
    sample.steady = std::fabs(before - after) <= 0.05 * sample.peak;
    return sample;
}

void run_entry(benchmark::State &bench, const cr_bench_entry &entry)
{
    void *state = entry.open(&entry);
    if (state == nullptr) {
        bench.SkipWithError("out of memory");
        return;
    }
    char message[400];
    if (entry.verify != nullptr && !entry.verify(state, message, sizeof message)) {
        bench.SkipWithError(message);
        entry.close(state);
        return;
    }
    double stream = entry.unit == CR_UNIT_NONE ? cr_bench_stream() : 0;
    std::vector<double> seconds, shares, ratios;
    measure(entry, state); // warm: caches, clock
    for (auto _ : bench) {
        (void)_;
        Sample sample = measure(entry, state);
        bench.SetIterationTime(sample.seconds);
        if (sample.steady) {
            seconds.push_back(sample.seconds);
            shares.push_back(sample.peak > 0 ? entry.flops / sample.seconds / sample.peak : 0);
        }
        if (entry.peer != nullptr) {
            double start = cr_bench_now();
            if (entry.peer(state)) {
                ratios.push_back((cr_bench_now() - start) / sample.seconds);
            }
        }
    }
    double typical = median(seconds);
    if (typical > 0) {
        bench.counters["flops"] = entry.flops / typical;
        bench.counters["bytes_per_second"] = entry.bytes / typical;
        if (entry.unit != CR_UNIT_NONE) {
            bench.counters["peak_share"] = median(shares);
            bench.counters["peak_share_best"] = *std::max_element(shares.begin(), shares.end());
        }
        if (stream > 0) {
            bench.counters["stream_share"] = entry.bytes / typical / std::max(stream, cr_bench_stream());
        }
    }
    bench.counters["dropped"] = static_cast<double>(bench.iterations()) - static_cast<double>(seconds.size());
    if (!ratios.empty()) {
        bench.counters["onednn_ratio"] = median(ratios);
    }
    entry.close(state);
}

} // namespace

extern "C" void cr_bench_register(const cr_bench_entry *entry)
{
    cr_bench_entry copy = *entry;
    benchmark::RegisterBenchmark(copy.name, [copy](benchmark::State &state) { run_entry(state, copy); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
}

int main(int argc, char **argv)
{
    const char *cap_name = std::getenv("CREDENCE_CPU");
    for (int i = 1; i + 1 < argc; i++) {
        if (std::strcmp(argv[i], "--cpu") == 0) {
            cap_name = argv[i + 1];
            std::copy(argv + i + 2, argv + argc + 1, argv + i);
            argc -= 2;
            break;
        }
    }
    cr_cpu cpu;
    cr_cpu_detect(&cpu);
    cr_error err;
    cr_tier cap;
    if (cr_cpu_cap(&cpu, cap_name, &cap, &err) != CR_OK) {
        std::fprintf(stderr, "credence-bench: %s\n", err.message);
        return 2;
    }
    bool capped = cap_name != nullptr && cap_name[0] != '\0';
    std::vector<cr_tier> tiers;
    for (unsigned tier = 0; tier < 32; tier++) {
        if ((cpu.features >> tier & 1u) && (!capped || tier <= static_cast<unsigned>(cap))) {
            tiers.push_back(static_cast<cr_tier>(tier));
        }
    }
    cr_bench_qgemm(tiers.data(), tiers.size());

    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 2;
    }
    benchmark::AddCustomContext("cpu", cpu.name);
    benchmark::AddCustomContext("tier", cr_tier_name(cap));
    benchmark::AddCustomContext("compiler", __VERSION__);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
