"""One module per command: its arguments and what it prints."""

# command -> its module, and its line in `easycap --help`.
COMMANDS = {
    "train": (
        "easycap.commands.train",
        "train a captioner: GROUP=OPTION GROUP.FIELD=VALUE ..., experiment=NAME",
    ),
    "data": (
        "easycap.commands.data",
        "download, find, list, check or show data: get coco ROOT, guess DIR, check data=coco data.root=ROOT",
    ),
    "evaluate": (
        "easycap.commands.evaluate",
        "caption a split with a run's best weights and score it: RUN [--split test]",
    ),
    "average": (
        "easycap.commands.average",
        "average the weights of a run's last epochs, or of several runs: RUN ...",
    ),
    "caption": ("easycap.commands.caption", "caption photos: RUN FILE|FOLDER ..."),
    "share": (
        "easycap.commands.share",
        "export a trained model with a model card, or upload it: RUN FOLDER|--hub USER/MODEL",
    ),
    "export": ("easycap.commands.export", "export a captioner to ONNX: RUN --onnx FOLDER"),
    "import": (
        "easycap.commands.import_",
        "make a run from released weights or from captions: SYSTEM FILE ... | captions FILE data=...",
    ),
    "score": ("easycap.commands.score", "score any captions: captions.json references.json"),
    "demo": ("easycap.commands.demo", "try out models in the browser: RUN ..."),
    "compare": (
        "easycap.commands.compare",
        "compare runs in a table and on a page, two runs also image by image: RUN|SWEEP ...",
    ),
    "table": ("easycap.commands.table", "show a paper's published scores next to your runs: PAPER RUN ..."),
    "runs": ("easycap.commands.runs", "list runs"),
    "completion": (
        "easycap.commands.completion",
        "tab completion of commands and settings: bash|zsh|fish",
    ),
    "new": (
        "easycap.commands.new",
        "write a package for your own component: decoder|encoder|metric|data|objective|condition NAME",
    ),
}
