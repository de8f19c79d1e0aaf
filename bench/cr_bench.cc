// The only C++ file: Google Benchmark behind cr_bench.h, and main.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "bench/cr_bench.h"
#include "bench/measure.h"
#include "bench/memory.h"
#include "bench/options.h"
#include "bench/report.h"
#include "commit.h"

namespace
{

cr_bench_options options;
std::vector<cr_bench_entry> entries;
std::vector<cr_bench_result> results; // of the entries that have run, in order

// Google Benchmark calls an entry several times with more and more iterations: set up once, samples are kept.
cr_bench_run *current;
size_t current_index = SIZE_MAX;

void store(const cr_bench_result &result)
{
    for (cr_bench_result &old : results) {
        if (std::strcmp(old.entry.name, result.entry.name) == 0) {
            old = result;
            return;
        }
    }
    results.push_back(result);
}

void fail(benchmark::State &bench, const cr_bench_entry &entry, const char *message)
{
    cr_bench_result result = {};
    result.entry = entry;
    std::snprintf(result.error, sizeof result.error, "%s", message);
    store(result);
    bench.SkipWithError(message);
}

void set_counters(benchmark::State &bench, const cr_bench_result &r)
{
    bench.counters["flops"] = r.entry.flops / r.seconds;
    bench.counters["bytes_per_second"] = r.entry.bytes / r.seconds;
    if (r.peak_share > 0) {
        bench.counters["peak_share"] = r.peak_share;
    }
    if (r.stream_share > 0) {
        bench.counters["stream_share"] = r.stream_share;
    }
    if (r.peak_share > 0 || r.stream_share > 0) {
        bench.counters["share_p90"] = r.share_p90;
        bench.counters["share_best"] = r.share_best;
    }
    if (r.onednn_ratio > 0) {
        bench.counters["onednn_ratio"] = r.onednn_ratio;
    }
    if (r.entry.items > 0) {
        bench.counters["items_per_second"] = r.entry.items / r.seconds;
        bench.counters["cycles_per_item"] = r.cycles_per_item;
    }
    bench.counters["samples"] = static_cast<double>(r.n_samples);
    bench.counters["dropped"] = static_cast<double>(r.n_dropped);
}

void run_entry(benchmark::State &bench, size_t index)
{
    const cr_bench_entry &entry = entries[index];
    if (index != current_index) {
        cr_bench_run_close(current);
        char message[400] = "";
        current = cr_bench_run_open(&entry, message, sizeof message);
        current_index = current != nullptr ? index : SIZE_MAX;
        if (current == nullptr) {
            fail(bench, entry, message);
            return;
        }
    }
    // Timers stand still but for the part that is ours.
    size_t n_runs = options.smoke ? 1 : cr_bench_run_warm(current);
    while (bench.KeepRunningBatch(static_cast<benchmark::IterationCount>(n_runs))) {
        if (options.smoke) {
            continue; // verified by opening
        }
        bench.PauseTiming();
        cr_bench_run_before(current);
        bench.ResumeTiming();
        cr_bench_run_timed(current);
        bench.PauseTiming();
        cr_bench_run_after(current);
        bench.ResumeTiming();
    }
    cr_bench_result result;
    cr_bench_run_result(current, &result);
    if (result.seconds > 0) {
        set_counters(bench, result);
    }
    store(result);
}

// family/operation/type/tier: an entry's name without its shape.
std::string kind_of(const cr_bench_entry &entry)
{
    std::string name = entry.name;
    size_t tier = name.rfind('/');
    return name.substr(0, name.rfind('/', tier - 1)) + name.substr(tier);
}

// The smallest entry of every kind.
void keep_smallest()
{
    std::map<std::string, size_t> smallest;
    auto size = [](const cr_bench_entry &e) { return e.flops + e.bytes; };
    for (size_t i = 0; i < entries.size(); i++) {
        auto found = smallest.emplace(kind_of(entries[i]), i).first;
        if (size(entries[i]) < size(entries[found->second])) {
            found->second = i;
        }
    }
    std::vector<cr_bench_entry> kept;
    for (size_t i = 0; i < entries.size(); i++) {
        if (smallest[kind_of(entries[i])] == i) {
            kept.push_back(entries[i]);
        }
    }
    entries = kept;
}

void choose_entries(const std::vector<cr_tier> &tiers)
{
#define CR_FAMILY(name) cr_bench_##name(tiers.data(), tiers.size());
#include "families.inc"
#undef CR_FAMILY
    if (options.tour) {
        entries.erase(std::remove_if(entries.begin(), entries.end(), [](const cr_bench_entry &e) { return !e.tour; }),
                      entries.end());
    }
    if (options.smoke) {
        keep_smallest();
    }
    for (size_t i = 0; i < entries.size(); i++) {
        benchmark::RegisterBenchmark(entries[i].name, [i](benchmark::State &state) {
            run_entry(state, i);
        })->Unit(benchmark::kMicrosecond);
    }
}

// 0, or 1 when an entry failed, none ran or the report could not be written.
int finish(const cr_cpu &cpu, cr_tier cap)
{
    cr_bench_run_close(current);
    size_t n_failed = 0;
    for (const cr_bench_result &r : results) {
        if (r.error[0] != '\0') {
            std::fprintf(stderr, "credence-bench: %s: %s\n", r.entry.name, r.error);
            n_failed++;
        }
    }
    if (options.smoke) {
        std::printf("%zu entries verified, %zu failed\n", results.size() - n_failed, n_failed);
    }
    if (options.report != nullptr) {
        cr_bench_report report = {&cpu, cap, options.command, results.data(), results.size()};
        if (!cr_bench_report_write(&report, options.report)) {
            return 1;
        }
        std::fprintf(options.json_on_stdout ? stderr : stdout, "report: %s\n", options.report);
    }
    return n_failed > 0 || (results.empty() && !options.list) ? 1 : 0;
}

} // namespace

extern "C" void cr_bench_register(const cr_bench_entry *entry)
{
    entries.push_back(*entry);
}

int main(int argc, char **argv)
{
    int status = cr_bench_options_parse(&options, argc, argv);
    if (status >= 0) {
        return status;
    }
    cr_cpu cpu;
    cr_cpu_detect(&cpu);
    cr_error err;
    cr_tier cap;
    if (cr_cpu_cap(&cpu, options.cpu, &cap, &err) != CR_OK) {
        std::fprintf(stderr, "credence-bench: %s\n", err.message);
        return 2;
    }
    bool capped = options.cpu != nullptr && options.cpu[0] != '\0';
    std::vector<cr_tier> tiers;
    for (unsigned tier = 0; tier < 32; tier++) {
        bool present = tier == 0 || (cpu.features >> tier & 1u);
        if (present && (!capped || tier <= static_cast<unsigned>(cap))) {
            tiers.push_back(static_cast<cr_tier>(tier));
        }
    }
    cr_bench_units_init(&cpu);
    cr_bench_set_threads(options.threads);
    if (options.peaks) {
        cr_bench_print_peaks();
        return 0;
    }
    choose_entries(tiers);
    benchmark::Initialize(&options.argc, options.argv);
    if (benchmark::ReportUnrecognizedArguments(options.argc, options.argv)) {
        return 2;
    }
    benchmark::AddCustomContext("cpu", cpu.name);
    benchmark::AddCustomContext("tier", cr_tier_name(cap));
    benchmark::AddCustomContext("threads", std::to_string(options.threads));
    benchmark::AddCustomContext("peer", cr_onednn_name());
    benchmark::AddCustomContext("compiler", __VERSION__);
    benchmark::AddCustomContext("commit", CR_BENCH_COMMIT);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return finish(cpu, cap);
}
