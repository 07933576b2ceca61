"""Colours and type that all pages of flashjax have, in light and in dark."""

THEME = """\
:root { --paper: #fbfbfa; --card: #ffffff; --ink: #1c1d21; --soft: #63666f; --rule: #e3e3e0; --accent: #2a63c9;
        --tint: #eef3fd; --bad: #b3372c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15161a; --card: #1d1f25; --ink: #e9e9ec; --soft: #a0a4b0; --rule: #33363f; --accent: #86aefc;
          --tint: #232c40; --bad: #ff9b8f; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
"""
