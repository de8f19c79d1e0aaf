#include "runtime/cli/commands.h"

#include <string.h>

const struct cr_cli_command cr_cli_commands[] = {
    {.name = "finetune", .bit = CR_CLI_FINETUNE, .operands = "", .polls = true, .run = cr_cli_run_finetune,
        .summary = "train an adapter for a model on examples",
        .detail = "Trains low-rank adapters on the quantised model and writes them to the output directory in the\n"
                  "forms of PEFT and llama.cpp, with train.jsonl, summary.json and checkpoints. A first Ctrl-C stops\n"
                  "after a checkpoint; --resume goes on from it.\n"},
    {.name = "eval", .bit = CR_CLI_EVAL, .operands = "", .polls = true, .run = cr_cli_run_eval,
        .summary = "measure a model, with or without an adapter, on examples",
        .detail = "Prints, for each task and for all: number, accuracy, negative log-likelihood (NLL), expected\n"
                  "calibration error (ECE, 15 bins) and Brier score. Texts: NLL a token and perplexity.\n"},
    {.name = "predict", .bit = CR_CLI_PREDICT, .operands = "", .polls = true,
        .run = cr_cli_run_predict,
        .summary = "print one JSON line an example: probabilities and how sure they are",
        .detail = ""},
    {.name = "laplace", .bit = CR_CLI_LAPLACE, .operands = "", .polls = true, .run = cr_cli_run_laplace,
        .summary = "fit a Gaussian around a trained adapter, from the curvature of its loss",
        .detail = "Takes an adapter that was trained to a point and the examples with choices that it was trained on\n"
                  "(what its run held out of that file does not count, as summary.json beside the adapter tells);\n"
                  "writes it again with a Kronecker-factored Laplace posterior beside it. eval and predict then answer\n"
                  "by the linearised model, or with --weights by draws of weights. The prior precision is chosen by\n"
                  "--valid, else by valid.jsonl of the adapter's directory (what its run held out), else, and with\n"
                  "--no-valid, by the evidence.\n"},
    {.name = "export", .bit = CR_CLI_EXPORT, .operands = "", .polls = true, .run = cr_cli_run_export,
        .summary = "write an adapter in the form of another program",
        .detail = ""},
    {.name = "compare", .bit = CR_CLI_COMPARE, .operands = "[NAME=]A.json[,...] [NAME=]B.json[,...] ...",
        .min_operands = 2, .max_operands = SIZE_MAX, .polls = true, .run = cr_cli_run_compare,
        .summary = "say whether evaluations of one test file really differ",
        .detail = "Takes files of eval --json. Files joined by commas are seeds of one method; NAME names it, and\n"
                  "@calibrated behind the last takes the answers at the temperature of eval --calibrate. Everything\n"
                  "is compared with the first: paired bootstrap over examples (and seeds) of accuracy, NLL, Brier score and ECE.\n"
                  "Prints tables in markdown.\n"},
    {.name = "info", .bit = CR_CLI_INFO, .operands = "FILE|DIR", .min_operands = 1, .max_operands = 1,
        .run = cr_cli_run_info,
        .summary = "tell what a model, adapter or output directory holds",
        .detail = "Says whether the file can be used here and, if not, why.\n"},
    {.name = "data", .bit = CR_CLI_DATA_SHOW, .operands = "", .run = cr_cli_run_data,
        .summary = "show examples as the model sees them",
        .detail = "Prints tokens marked by whether they carry loss, lengths, and what was cut or repeated.\n"},
    {.name = "tokenize", .bit = CR_CLI_TOKENIZE, .operands = "[FILE|-]", .max_operands = 1, .polls = true,
        .run = cr_cli_run_tokenize,
        .summary = "print token ids, one line a line of input",
        .detail = "Reads the file, or standard input when there is none or it is -. Lines end in a line feed, or a\n"
                  "carriage return and a line feed. Special tokens in the text are plain text unless --special.\n"},
    {.name = "cpu", .bit = CR_CLI_CPU_REPORT, .operands = "", .run = cr_cli_run_cpu,
        .summary = "say what this processor offers and what is used of it",
        .detail = "CREDENCE_CPU caps like --cpu, which beats it.\n"},
};

const size_t cr_cli_n_commands = sizeof cr_cli_commands / sizeof cr_cli_commands[0];

const struct cr_cli_command *cr_cli_command_find(const char *name)
{
    for (size_t i = 0; i < cr_cli_n_commands; i++) {
        if (strcmp(cr_cli_commands[i].name, name) == 0) {
            return &cr_cli_commands[i];
        }
    }
    return NULL;
}
