"""What an edit does, beside its controls: dose, nulls, transfer, answers, the scorecard."""

from persona.rows import random_restorations
from steering.evidence.answers import describe_judge, judge_samples, judged_conditions
from steering.evidence.dose import coefficient_at_kl, dose_response, report_rows, summarise_doses
from steering.evidence.first_order_null import first_order_null, predicted_falls
from steering.evidence.null_summary import null_of_draws, null_of_first_order
from steering.evidence.question_table import question_table
from steering.evidence.random_edits import RecordedSteps, random_directions
from steering.evidence.scorecard import make_scorecard, restoration_of
from steering.evidence.system_prompt import score_prompted, with_system_prompt
from steering.evidence.task_evaluation import (
    EvalConfig,
    Evaluation,
    evaluate_tasks,
    models_of_run,
    table_head,
    table_rows,
)
from steering.evidence.transfer import transfer_matrix, vector_cosines

__all__ = [
    "EvalConfig",
    "Evaluation",
    "RecordedSteps",
    "coefficient_at_kl",
    "describe_judge",
    "dose_response",
    "evaluate_tasks",
    "first_order_null",
    "judge_samples",
    "judged_conditions",
    "make_scorecard",
    "models_of_run",
    "null_of_draws",
    "null_of_first_order",
    "predicted_falls",
    "question_table",
    "random_directions",
    "random_restorations",
    "report_rows",
    "restoration_of",
    "score_prompted",
    "summarise_doses",
    "table_head",
    "table_rows",
    "transfer_matrix",
    "vector_cosines",
    "with_system_prompt",
]
