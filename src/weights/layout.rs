//! How checkpoints spell the names of the [manifest](super::manifest).
//!
//! Upstream writes the same model under several names. `Sam3VideoModel` is published with the tracker under
//! `tracker_model.`, but `save_pretrained` of 5.23 writes that prefix twice. `Sam3TrackerModel.save_pretrained` undoes
//! its renaming on loading and then puts everything under `tracker_model.`, the shared backbone included. A bare model's
//! state dictionary, saved by hand, has no prefix at all.

/// A way to name tensors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// For people.
    pub name: &'static str,
    /// Published prefix and what stands in its place; the first that fits counts. Names that fit none are not in such
    /// a file.
    rules: &'static [(&'static str, &'static str)],
}

/// Every known layout, the published one first.
pub(super) static LAYOUTS: &[Layout] = &[
    Layout { name: "Sam3VideoModel, as published", rules: &[("", "")] },
    Layout {
        name: "Sam3VideoModel, as saved by transformers 5",
        rules: &[("tracker_model.", "tracker_model.tracker_model."), ("", "")],
    },
    Layout { name: "Sam3Model", rules: &[("detector_model.", "")] },
    Layout {
        name: "Sam3TrackerModel, as saved by transformers 5",
        rules: &[
            ("detector_model.vision_encoder.backbone.", "tracker_model.detector_model.vision_encoder.backbone."),
            ("tracker_neck.", "tracker_model.tracker_neck."),
            ("tracker_model.", "tracker_model."),
        ],
    },
    Layout {
        name: "Sam3TrackerModel",
        rules: &[
            ("detector_model.vision_encoder.backbone.", "vision_encoder.backbone."),
            ("tracker_neck.", "vision_encoder.neck."),
            ("tracker_model.", ""),
        ],
    },
];

impl Layout {
    /// The name in a file of this layout of the tensor published as `canonical`; `None` if such files lack it.
    pub fn spell(&self, canonical: &str) -> Option<String> {
        self.rules.iter().find_map(|(ours, theirs)| canonical.strip_prefix(ours).map(|rest| format!("{theirs}{rest}")))
    }
}

/// The layout under which a file has most of the `wanted` names, the earliest of equals.
pub(super) fn detect<'a>(wanted: impl Iterator<Item = &'a str> + Clone, has: impl Fn(&str) -> bool) -> &'static Layout {
    let score = |layout: &Layout| wanted.clone().filter(|n| layout.spell(n).is_some_and(|s| has(&s))).count();
    let mut best = (&LAYOUTS[0], score(&LAYOUTS[0]));
    for layout in &LAYOUTS[1..] {
        let n = score(layout);
        if n > best.1 {
            best = (layout, n);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layout_spells_its_own_names() {
        let spell = |i: usize, n: &str| LAYOUTS[i].spell(n);
        let (vit, neck, prompt) = (
            "detector_model.vision_encoder.backbone.layer_norm.bias",
            "tracker_neck.fpn_layers.0.proj1.bias",
            "tracker_model.no_memory_embedding",
        );
        assert_eq!(spell(0, prompt).as_deref(), Some(prompt));
        assert_eq!(spell(1, prompt).as_deref(), Some("tracker_model.tracker_model.no_memory_embedding"));
        assert_eq!(spell(1, neck).as_deref(), Some(neck));
        assert_eq!(spell(2, vit).as_deref(), Some("vision_encoder.backbone.layer_norm.bias"));
        assert_eq!(spell(2, prompt), None);
        assert_eq!(
            spell(3, vit).as_deref(),
            Some("tracker_model.detector_model.vision_encoder.backbone.layer_norm.bias")
        );
        assert_eq!(spell(3, "detector_model.text_projection.bias"), None);
        assert_eq!(spell(4, neck).as_deref(), Some("vision_encoder.neck.fpn_layers.0.proj1.bias"));
        assert_eq!(spell(4, prompt).as_deref(), Some("no_memory_embedding"));
    }
}
