"use strict";
// Plays the film that the page holds. What was recorded only ever becomes text.
(() => {
  const film = JSON.parse(document.getElementById("film").textContent);
  const byId = (id) => document.getElementById(id);
  const screen = byId("screen"), play = byId("play"), seek = byId("seek"), clock = byId("clock"), speed = byId("speed");
  const classes = [[1, "bold"], [4, "italic"], [8, "underline"], [64, "struck"]];
  const every = 100; // a keyframe
  const lines = [];
  for (let y = 0; y < film.rows; y++) {
    lines.push(screen.appendChild(document.createElement("div")));
  }
  screen.style.width = film.cols + "ch";

  // keys are the rows as they are before each hundredth frame.
  const keys = [];
  {
    const rows = [];
    film.frames.forEach((frame, i) => {
      if (i % every === 0) keys.push(rows.slice());
      for (const y in frame.r || {}) rows[y] = frame.r[y];
    });
  }

  let rows = [], shown = -1; // the frame that is shown
  let time = 0, playing = false, before = 0;

  const span = (text, style) => {
    const el = document.createElement("span");
    if (style < 0) {
      el.classList.add("wide");
      style = -1 - style;
    }
    const ink = film.styles[style] || {};
    if (ink.f) el.style.color = ink.f;
    if (ink.b) el.style.backgroundColor = ink.b;
    for (const [bit, name] of classes) if (ink.a & bit) el.classList.add(name);
    el.textContent = text;
    return el;
  };

  // drawRow shows a row, the cell at column cursor marked unless that is -1.
  const drawRow = (y, cursor) => {
    const spans = rows[y] || [], parts = [];
    let column = 0;
    for (let i = 0; i < spans.length; i += 2) {
      const text = spans[i], style = spans[i + 1];
      const chars = style < 0 ? [text] : Array.from(new Intl.Segmenter().segment(text), (s) => s.segment);
      const width = style < 0 ? 2 : chars.length;
      if (cursor < column || cursor >= column + width) {
        parts.push(span(text, style));
      } else {
        const at = style < 0 ? 0 : cursor - column;
        if (at > 0) parts.push(span(chars.slice(0, at).join(""), style));
        const mark = span(chars[at], style);
        mark.classList.add("cursor");
        parts.push(mark);
        if (at + 1 < chars.length) parts.push(span(chars.slice(at + 1).join(""), style));
      }
      column += width;
    }
    if (cursor >= column) {
      if (cursor > column) parts.push(span(" ".repeat(cursor - column), 0));
      const mark = span(" ", 0);
      mark.classList.add("cursor");
      parts.push(mark);
    }
    lines[y].replaceChildren(...parts);
  };

  // frameAt is the last frame up to a time.
  const frameAt = (t) => {
    let low = 0, high = film.frames.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (film.frames[middle].t <= t) low = middle; else high = middle - 1;
    }
    return low;
  };

  const show = (n) => {
    if (n === shown || film.frames.length === 0) return;
    const dirty = new Set();
    let from = shown + 1;
    if (n < shown || n - shown > every) {
      const key = Math.floor(n / every);
      rows = keys[key].slice();
      from = key * every;
      for (let y = 0; y < lines.length; y++) dirty.add(y);
    } else if (shown >= 0) {
      dirty.add(film.frames[shown].y);
    }
    for (let i = from; i <= n; i++) {
      for (const y in film.frames[i].r || {}) {
        rows[y] = film.frames[i].r[y];
        dirty.add(Number(y));
      }
    }
    const frame = film.frames[n];
    dirty.add(frame.y);
    for (const y of dirty) if (lines[y]) drawRow(y, frame.x >= 0 && y === frame.y ? frame.x : -1);
    shown = n;
  };

  const two = (n) => String(n).padStart(2, "0");
  const clockText = (t) => {
    const s = Math.floor(t / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60);
    return h > 0 ? h + ":" + two(m % 60) + ":" + two(s % 60) : m + ":" + two(s % 60);
  };

  const buttons = film.marks.map((mark) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = clockText(mark.t) + "  " + mark.l;
    button.addEventListener("click", () => go(mark.t));
    byId("marks").appendChild(document.createElement("li")).appendChild(button);
    return button;
  });

  const update = () => {
    show(frameAt(time));
    seek.value = String(Math.round(time));
    clock.textContent = clockText(time) + " / " + clockText(film.length);
    play.textContent = playing ? "Pause" : "Play";
    let now = -1;
    film.marks.forEach((mark, i) => { if (mark.t <= time) now = i; });
    buttons.forEach((button, i) => button.classList.toggle("now", i === now));
  };

  const go = (t) => {
    time = Math.min(Math.max(t, 0), film.length);
    update();
  };

  const tick = (now) => {
    if (!playing) return;
    time += (now - before) * Number(speed.value);
    before = now;
    if (time >= film.length) {
      time = film.length;
      playing = false;
    }
    update();
    if (playing) requestAnimationFrame(tick);
  };

  const toggle = () => {
    playing = !playing;
    if (playing && time >= film.length) time = 0;
    update();
    before = performance.now();
    if (playing) requestAnimationFrame(tick);
  };

  const jumpMark = (ahead) => {
    const times = film.marks.map((mark) => mark.t);
    const to = ahead ? times.find((t) => t > time) : times.filter((t) => t < time - 1000).pop() || 0;
    if (to !== undefined) go(to);
  };

  seek.max = String(film.length);
  seek.addEventListener("input", () => go(Number(seek.value)));
  play.addEventListener("click", toggle);
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target === seek || e.target === speed) return;
    switch (e.key) {
      case " ":
        if (e.target.tagName === "BUTTON") return;
        toggle();
        break;
      case "ArrowRight": go(time + 5000); break;
      case "ArrowLeft": go(time - 5000); break;
      case "n": jumpMark(true); break;
      case "p": jumpMark(false); break;
      default: return;
    }
    e.preventDefault();
  });
  update();
})();
