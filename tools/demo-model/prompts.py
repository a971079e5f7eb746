"""What the detector is asked about a scene: phrases that fit, phrases that nearly fit, exemplar boxes."""

import dataclasses

import torch

from vocabulary import COLOURS, SHAPES


@dataclasses.dataclass
class Asked:
    """P prompts for each of B pictures. `hit` says which of the K objects answer each."""

    rows: torch.Tensor  # [B, P] rows of `Phrases`
    hit: torch.Tensor  # [B, P, K] bool
    exemplar: torch.Tensor  # [B, P] the object shown as a box, -1 for none
    speechless: torch.Tensor  # [B, P] bool, exemplar without words


def means(phrases, rows, scenes):
    """Which objects [B, P, K] the phrases in `rows` [B, P] name; a word that names nothing fits nothing."""
    shape, colour = phrases.shape[rows][..., None], phrases.colour[rows][..., None]
    fits = (shape >= 0) | (colour >= 0)
    fits = fits & ((shape < 0) | (shape == scenes.shape[:, None])) & ((colour < 0) | (colour == scenes.colour[:, None]))
    thing = scenes.thing[:, None].expand(-1, rows.shape[1], -1)
    drawn = phrases.members[rows].gather(2, thing.clamp(min=0)) & (thing >= 0)
    return (fits | drawn) & scenes.valid[:, None]


def ask(phrases, scenes, per, exemplars=0.0, generator=None):
    """`per` prompts a picture: two thirds about an object there is, the rest absent, half of those nearly right."""
    batch, device = len(scenes.valid), scenes.valid.device
    rand = lambda: torch.rand(batch, per, generator=generator, device=device)
    draw = lambda high: torch.randint(0, high, (batch, per), generator=generator, device=device)
    weight = scenes.valid.float() + 1e-6
    about = torch.multinomial(weight, per, replacement=True, generator=generator)  # [B, P]
    shape, colour = scenes.shape.gather(1, about), scenes.colour.gather(1, about)
    none = torch.full_like(shape, -1)
    # How much is said: both words, the shape alone, the colour alone. Objects without a name only have their colour.
    said = rand()
    said = torch.where((shape < 0) & (colour >= 0), 0.99, said)
    ask_shape = torch.where(said < 0.8, shape, none)
    ask_colour = torch.where((said < 0.55) | (said >= 0.8), colour, none)
    # Nearly right: one word changed. A changed phrase may still fit another object; `means` decides, not the intent.
    kind, other = rand(), rand()
    spoil = kind < 0.34
    spoil_colour = spoil & (other < 0.5) & (ask_colour >= 0)
    spoil_shape = spoil & ~spoil_colour & (ask_shape >= 0)
    ask_colour = torch.where(spoil_colour | (spoil & (ask_colour >= 0) & (kind < 0.14)), draw(len(COLOURS)), ask_colour)
    ask_shape = torch.where(spoil_shape | (spoil & (ask_shape >= 0) & (kind < 0.14)), draw(len(SHAPES)), ask_shape)
    wording = draw(phrases.table.shape[2])
    plain = rand() < 0.5
    rows = phrases.table[ask_shape, ask_colour, torch.where(plain, 0, wording)]
    stranger = (ask_shape < 0) & (ask_colour < 0) | (kind < 0.03)
    rows = torch.where(stranger, phrases.things + draw(len(phrases.ids) - phrases.things), rows)
    # Drawn things: one of their words, or in place of a spoiled one any other word for things.
    thing = scenes.thing.gather(1, about)
    called = phrases.names[thing.clamp(min=0), draw(phrases.names.shape[1])]
    if phrases.things > phrases.named:
        called = torch.where(spoil, phrases.named + draw(phrases.things - phrases.named), called)
    rows = torch.where((thing >= 0) & (kind >= 0.03), called, rows)
    hit = means(phrases, rows, scenes)
    # Exemplars: an object of a name is shown instead of said; alike are those of its shape and colour.
    alike = (
        (scenes.shape[:, None] == shape[..., None])
        & (scenes.colour[:, None] == colour[..., None])
        & scenes.valid[:, None]
    )
    alike &= (shape >= 0)[..., None]
    alike |= (scenes.thing[:, None] == thing[..., None]) & (thing >= 0)[..., None] & scenes.valid[:, None]
    show = (rand() < exemplars) & ((shape >= 0) | (thing >= 0)) & scenes.valid.gather(1, about)
    hit = torch.where(show[..., None], alike, hit)
    rows = torch.where(
        show, torch.where(thing >= 0, phrases.names[thing.clamp(min=0), 0], phrases.table[shape, colour, 0]), rows
    )
    speechless = show & (rand() < 0.7)
    return Asked(rows, hit, torch.where(show, about, -1), speechless)


def prompt_features(model, phrases, asked, scenes, seen, places, generator=None):
    """Prompt features [N, L, D] and mask for `Demo.detect`: words, and behind them exemplar boxes where shown."""
    rows = asked.rows.flatten()
    speechless = asked.speechless.flatten()
    ids, mask = (
        torch.where(speechless[:, None], visual, said[rows])
        for visual, said in zip(phrases.visual, (phrases.ids, phrases.mask))
    )
    text, text_mask = model.read(ids, mask)
    shown = asked.exemplar.flatten()
    use = (shown >= 0).nonzero()[:, 0]
    if not len(use):
        return text, text_mask
    batch, per = asked.rows.shape
    pictures = torch.arange(batch, device=rows.device).repeat_interleave(per)
    boxes = scenes.boxes[pictures, shown.clamp(min=0)]
    noise = (torch.rand(boxes.shape, generator=generator, device=boxes.device) - 0.5) * 0.1
    boxes = (boxes + noise * boxes[:, 2:].repeat(1, 2)).clamp(0.01, 0.99)
    found, found_mask = model.exemplars(
        seen, places, boxes[use][:, None], torch.ones(len(use), 1, dtype=torch.long, device=rows.device), pictures[use]
    )
    features = text.new_zeros(len(rows), found.shape[1], text.shape[2]).index_copy(0, use, found.to(text.dtype))
    valid = torch.zeros(len(rows), found.shape[1], dtype=torch.bool, device=rows.device).index_copy(0, use, found_mask)
    return torch.cat([text, features], 1), torch.cat([text_mask, valid], 1)
