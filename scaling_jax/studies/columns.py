"""The columns of results.csv and bases.csv; those of further evaluations follow them."""

COLUMNS = (
    "run_id study task method model model_params non_embedding_params pretrain_mixture pretrain_tokens after "
    "finetune_examples finetune_tokens tuning_size tuning_params subset_seed seed steps best_step "
    "dev_loss loss bleu chrf rouge_1 rouge_2 rouge_l exact_match accuracy judge_score "
    "step_seconds epoch_seconds train_seconds tokens_per_second peak_memory_bytes checkpoint_bytes "
    "forward_flops_per_token backward_flops_per_token flops_saved converged_step runs_at_once "
    "status reason record"
).split()
BASE_COLUMNS = (
    "base_id task model model_params non_embedding_params pretrain_mixture pretrain_tokens loss "
    "status reason record"
).split()
