"""Which guesses hold: the tokens a row would have got one by one, as far as the guesses are the same.

Each token is drawn from what the model says after the tokens before it, with the row's own source of random numbers,
penalties and grammar, exactly as without a guess; a guess only says which positions are computed already. So there is
nothing to correct: whatever is guessed, tokens have the distribution that the model gives them, and a seed gives the
same text.
"""

from __future__ import annotations

from collections.abc import Callable


def drawn(guess: list[int], draw: Callable[[int], int], ended: Callable[[], bool] = lambda: False) -> list[int]:
    """The tokens that follow: those of the guess that hold, and the first that is not of it.

    draw: the token after the first n tokens of the guess, called for 0, 1, 2 … in order. ended: whether nothing can
    follow what the last call has seen.
    """
    tokens = []
    for at in range(len(guess) + 1):
        tokens.append(draw(at))
        if ended() or tokens[-1:] != guess[at : at + 1]:
            break
    return tokens
