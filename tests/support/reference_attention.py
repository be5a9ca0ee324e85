"""The attention critic as loops over rows, agents and heads."""

import jax
import jax.numpy as jnp
import numpy as np


def leaky(x):
    return jnp.where(x > 0, x, 0.01 * x)


def looped(params, observation, action, active, heads, width, own=None):
    """The values `[B, N, M]`, and the logits of pairs of active agents by head and agent, one list for all rows.

    With `own` `[B, N, F]` the values read these features of the agents' own actions too.
    """
    rows, logits = [], {}
    own = [None] * len(observation) if own is None else own
    for o, a, there, mine in zip(observation, action, np.asarray(active), own, strict=True):
        seen = [leaky(o[i] @ params["observer"][i] + params["observer_bias"][i]) for i in range(len(o))]
        encoded = [
            leaky(jnp.concatenate([o[j], a[j]]) @ params["encoder"][j] + params["encoder_bias"][j])
            for j in range(len(o))
        ]
        out = []
        for i in range(len(o)):
            parts = [seen[i]]
            for h in range(heads):
                others = [j for j in range(len(o)) if j != i and there[j]]
                query = seen[i] @ params["queries"][h]
                scores = [query @ (encoded[j] @ params["keys"][h]) for j in others]
                if there[i]:
                    logits.setdefault((h, i), []).extend(scores)
                weights = jax.nn.softmax(jnp.array(scores) / np.sqrt(width // heads)) if others else []
                values = [leaky(encoded[j] @ params["values"][h] + params["values_bias"][h]) for j in others]
                parts.append(sum((w * v for w, v in zip(weights, values, strict=True)), jnp.zeros(width // heads)))
            hidden = jnp.concatenate(parts) @ params["hidden"][i] + params["hidden_bias"][i]
            if mine is not None:
                hidden += mine[i] @ params["hidden_action"][i]
            out.append(leaky(hidden) @ params["output"][i] + params["output_bias"][i])
        rows.append(jnp.stack(out))
    return jnp.stack(rows), logits


def table_of(params, *arguments):
    """The values of `looped`, as one program instead of thousands."""
    return jax.jit(lambda params: looped(params, *arguments)[0])(params)
