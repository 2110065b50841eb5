"""lm-eval 0.4.11 cannot make its model type `steered`: the table of model types names another class
(`SteeredHF`) than the module has (`SteeredModel`), and importing the module raises. In 0.4.9.1 it
can be made.

Needs: lm-eval==0.4.11 transformers==5.9.0
"""

import lm_eval.models
from lm_eval.api.registry import get_model

print("named:", lm_eval.models.MODEL_MAPPING["steered"])
try:
    print("made:", get_model("steered"))
except ValueError as error:
    print("raises:", error)
    raise SystemExit(1) from None
