"use strict";
const byId = (id) => document.getElementById(id);

async function start() {
  const data = JSON.parse(byId("data").textContent);
  const [FRAMES, HEIGHT, WIDTH] = data.size;
  const isAttention = data.kind === "attention";
  // Keys that the outline surrounds: a share of those that a query sees, at
  // most as many as figure 3 of the paper has arrows.
  const STRONGEST_SHARE = 0.05, STRONGEST = 20;
  const THUMB = Math.min(1, 128 / Math.max(HEIGHT, WIDTH));

  const state = {
    view: 0,
    frame: 0,
    // Of the clip: what was last asked for, before it snaps to a position.
    query: [Math.floor(FRAMES / 2), (HEIGHT - 1) / 2, (WIDTH - 1) / 2],
  };

  // ---- Unpacking ----------------------------------------------------------

  function bytes(base64) {
    const text = atob(base64);
    const result = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) result[i] = text.charCodeAt(i);
    return result;
  }

  async function inflate(base64) {
    const stream = new Blob([bytes(base64)])
      .stream()
      .pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function unpack(view) {
    const keys = ["times", "rows", "columns"].map((axis) => view.keys[axis]);
    view.shape = keys.map((centres) => centres.length);
    view.codes = await inflate(view.codes);
    view.numbers = new Float32Array((await inflate(view.numbers)).buffer);
    view.cuts = keys.map(borders);
    // Where a code is from the least to the greatest weight of the query.
    view.places = Float32Array.from({ length: 256 }, (_, code) => {
      const step = (code - 1) / (view.last_code - 1);
      return view.signed ? step : step * step;
    });
  }

  // ---- Geometry -----------------------------------------------------------

  function nearest(centres, place) {
    let best = 0;
    for (let i = 1; i < centres.length; i++) {
      if (Math.abs(centres[i] - place) < Math.abs(centres[best] - place)) {
        best = i;
      }
    }
    return best;
  }

  // Where the cells around some centres begin and end.
  function borders(centres) {
    const last = centres.length - 1;
    if (last === 0) return [-0.5, Infinity];
    const cuts = centres.slice(1).map((c, i) => (c + centres[i]) / 2);
    cuts.unshift(2 * centres[0] - cuts[0]);
    cuts.push(2 * centres[last] - cuts[last]);
    return cuts;
  }

  // The two centres around each of `count` pixels that cover `end` of them,
  // among the `length` from the `first` on, and how far it is from one to the
  // other. Pixels that are nearest to none of these centres are not seen.
  function between(all, first, length, end, count) {
    const low = new Int32Array(count), share = new Float32Array(count);
    const isSeen = new Uint8Array(count), centres = all.slice(first, first + length);
    for (let i = 0, at = 0; i < count; i++) {
      const place = ((i + 0.5) * end) / count - 0.5;
      const own = nearest(all, place) - first;
      isSeen[i] = own >= 0 && own < length;
      while (at < length - 2 && centres[at + 1] <= place) at++;
      low[i] = at;
      if (length > 1) {
        const part = (place - centres[at]) / (centres[at + 1] - centres[at]);
        share[i] = Math.min(Math.max(part, 0), 1);
      }
    }
    return [low, share, isSeen];
  }

  const axesOf = (view) => ["times", "rows", "columns"].map((a) => view.queries[a]);

  // The stored query nearest to what was asked for, by axis.
  function snapped(view) {
    return axesOf(view).map((axis, i) => nearest(axis, state.query[i]));
  }

  function numberOf(view) {
    const [t, y, x] = snapped(view);
    const { rows, columns } = view.queries;
    return (t * rows.length + y) * columns.length + x;
  }

  function placeOf(view) {
    const at = snapped(view);
    return axesOf(view).map((axis, i) => axis[at[i]]);
  }

  function clampFrame(time) {
    return Math.min(Math.max(Math.round(time), 0), FRAMES - 1);
  }

  // ---- Weights ------------------------------------------------------------

  // Of the keys that the query sees, by time, row and column.
  function codesOf(view) {
    const start = numberOf(view) * view.num_keys;
    return view.codes.subarray(start, start + view.num_keys);
  }

  function numbersOf(view) {
    const start = 8 * numberOf(view);
    const [low, high, best, total, entropy, share, evenShare, first] =
      view.numbers.subarray(start, start + 8);
    const largest = Math.max(Math.abs(low), Math.abs(high));
    return { low, high, largest, best, total, entropy, share, evenShare, first };
  }

  // Time, row and column of a key by its number, among all or some.
  function unravel(number, [, rows, columns]) {
    const row = Math.floor(number / columns);
    return [Math.floor(row / rows), row % rows, number % columns];
  }

  // Numbers of the keys that the query sees.
  function keysOf(view) {
    const { first } = numbersOf(view), [, rows, columns] = view.shape;
    return Array.from({ length: view.num_keys }, (_, i) => {
      const [t, y, x] = unravel(i, view.window);
      return first + (t * rows + y) * columns + x;
    });
  }

  // What each code stands for, for the query.
  function valuesOf(view) {
    const { low, high } = numbersOf(view);
    const values = view.places.map((place) => low + (high - low) * place);
    values[0] = 0;
    return values;
  }

  // All weights of the query, as `AttentionMaps.weights` has them.
  function weights(view) {
    const values = valuesOf(view), codes = codesOf(view);
    const found = new Float32Array(view.shape.reduce((a, b) => a * b));
    keysOf(view).forEach((key, i) => { found[key] = values[codes[i]]; });
    return found;
  }

  // Weights at the pixels of a frame, as `AttentionMaps.on_clip` has them:
  // linear between the centres of the keys that the query sees, constant
  // outside of them, and 0 where another key is nearest.
  function heatOf(view, frame, height, width) {
    const [depth, rows, columns] = view.window, size = rows * columns;
    const codes = codesOf(view), values = valuesOf(view);
    const heat = new Float32Array(height * width);
    const [t0, y0, x0] = unravel(numbersOf(view).first, view.shape);
    const [times, shares, isSeen] = between(view.keys.times, t0, depth, FRAMES, FRAMES);
    if (!isSeen[frame]) return heat;
    const first = times[frame] * size, share = shares[frame];
    const second = Math.min(times[frame] + 1, depth - 1) * size;
    const plane = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      plane[i] = (1 - share) * values[codes[first + i]] + share * values[codes[second + i]];
    }
    const [ys, downs, hasRow] = between(view.keys.rows, y0, rows, HEIGHT, height);
    const [xs, rights, hasColumn] = between(view.keys.columns, x0, columns, WIDTH, width);
    for (let y = 0; y < height; y++) {
      if (!hasRow[y]) continue;
      const above = ys[y] * columns;
      const below = Math.min(ys[y] + 1, rows - 1) * columns, down = downs[y];
      for (let x = 0; x < width; x++) {
        if (!hasColumn[x]) continue;
        const left = xs[x], right = Math.min(left + 1, columns - 1);
        const part = rights[x];
        heat[y * width + x] =
          (1 - down) * ((1 - part) * plane[above + left] + part * plane[above + right]) +
          down * ((1 - part) * plane[below + left] + part * plane[below + right]);
      }
    }
    return heat;
  }

  // Numbers of the strongest keys of the query. Every frame asks for them:
  // those of the last query of a view are kept.
  const lastStrongest = new WeakMap();

  function strongest(view) {
    const number = numberOf(view);
    if (lastStrongest.get(view)?.number !== number) {
      lastStrongest.set(view, { number, keys: findStrongest(view) });
    }
    return lastStrongest.get(view).keys;
  }

  function findStrongest(view) {
    const values = valuesOf(view), keys = keysOf(view);
    const sizes = Float32Array.from(codesOf(view), (code) => Math.abs(values[code]));
    const order = [...sizes.keys()].filter((i) => sizes[i] > 0);
    order.sort((a, b) => sizes[b] - sizes[a] || a - b);
    const share = Math.ceil(STRONGEST_SHARE * view.num_keys);
    return order.slice(0, Math.min(share, STRONGEST)).map((i) => keys[i]);
  }

  // ---- Colours ------------------------------------------------------------

  // Even to the eye and distinct without colour vision: matplotlib's inferno
  // without its darkest quarter, which would look like shadows, and RdBu.
  const SEQUENTIAL = [
    [87, 16, 110], [120, 28, 109], [152, 39, 102], [184, 50, 88],
    [214, 70, 67], [237, 105, 37], [250, 146, 6], [250, 193, 39],
    [243, 239, 107], [252, 255, 164],
  ];
  const DIVERGING = [
    [5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31],
  ];
  // What is left of the frames' own colours and brightness below heat.
  const COLOUR_LEFT = 0.35, LIGHT_LEFT = 0.75;

  function colourTable(stops, opacity) {
    const table = new Uint8ClampedArray(4 * 256);
    for (let i = 0; i < 256; i++) {
      const place = (i / 255) * (stops.length - 1);
      const low = Math.min(Math.floor(place), stops.length - 2);
      for (let c = 0; c < 3; c++) {
        const [a, b] = [stops[low][c], stops[low + 1][c]];
        table[4 * i + c] = a + (b - a) * (place - low);
      }
      table[4 * i + 3] = 255 * opacity(i / 255);
    }
    return table;
  }

  const TABLES = {
    sequential: colourTable(SEQUENTIAL, (u) => 0.65 * Math.sqrt(u)),
    diverging: colourTable(DIVERGING, (u) => 0.75 * Math.sqrt(Math.abs(2 * u - 1))),
  };
  const tableOf = (view) => (view.signed ? TABLES.diverging : TABLES.sequential);

  // The weights that have the first and the last colour.
  function limits(view) {
    const { low, high, largest } = numbersOf(view);
    if (view.signed) return [-largest, largest];
    return byId("stretch").checked && high > low ? [low, high] : [0, largest];
  }

  // A frame with less colour, so that what is coloured is heat.
  function muted(picture) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const image = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < image.data.length; i += 4) {
      const [r, g, b] = image.data.subarray(i, i + 3);
      const grey = (1 - COLOUR_LEFT) * (0.299 * r + 0.587 * g + 0.114 * b);
      for (let c = i; c < i + 3; c++) {
        image.data[c] = LIGHT_LEFT * (COLOUR_LEFT * image.data[c] + grey);
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  const sheet = document.createElement("canvas");

  function paintHeat(context, view, frame, height, width) {
    const heat = heatOf(view, frame, height, width);
    const picture = new ImageData(width, height), [from, to] = limits(view);
    // A pixel, and a colour, is one number of 32 bits.
    const pixels = new Uint32Array(picture.data.buffer);
    const colours = new Uint32Array(tableOf(view).buffer);
    const rate = to > from ? 255 / (to - from) : 0;
    for (let i = 0; i < heat.length; i++) {
      pixels[i] = colours[Math.round(Math.max(rate * (heat[i] - from), 0))];
    }
    [sheet.width, sheet.height] = [width, height];
    sheet.getContext("2d").putImageData(picture, 0, 0);
    context.drawImage(sheet, 0, 0, context.canvas.width, context.canvas.height);
  }

  // ---- Drawing ------------------------------------------------------------

  // A line that shows on any background.
  function stroke(context, path, width, dash = []) {
    context.setLineDash(dash);
    context.lineJoin = "round";
    for (const [colour, extra] of [["#000", width], ["#fff", 0]]) {
      context.strokeStyle = colour;
      context.lineWidth = width + extra;
      context.stroke(path);
    }
  }

  function paintOutline(context, view, frame, scale) {
    const [, rows, columns] = view.shape, time = nearest(view.keys.times, frame);
    const inside = new Set(
      strongest(view)
        .map((key) => key - time * rows * columns)
        .filter((key) => key >= 0 && key < rows * columns));
    const path = new Path2D(), [, ys, xs] = view.cuts;
    const at = (cuts, i, end) =>
      (Math.min(Math.max(cuts[i], -0.5), end - 0.5) + 0.5) * scale;
    const edge = (x0, y0, x1, y1) => {
      path.moveTo(at(xs, x0, WIDTH), at(ys, y0, HEIGHT));
      path.lineTo(at(xs, x1, WIDTH), at(ys, y1, HEIGHT));
    };
    for (const key of inside) {
      const y = Math.floor(key / columns), x = key % columns;
      if (!inside.has(key - columns)) edge(x, y, x + 1, y);
      if (!inside.has(key + columns)) edge(x, y + 1, x + 1, y + 1);
      if (x === 0 || !inside.has(key - 1)) edge(x, y, x, y + 1);
      if (x === columns - 1 || !inside.has(key + 1)) edge(x + 1, y, x + 1, y + 1);
    }
    stroke(context, path, Math.max(1, context.canvas.width / 320));
  }

  function paintQuery(context, view, scale) {
    const [, y, x] = placeOf(view).map((c) => (c + 0.5) * scale);
    const unit = context.canvas.width / 100, ring = new Path2D();
    if (byId("box").checked && scale >= 1) {
      const [, height, width] = view.field.map((n) => n * scale), box = new Path2D();
      const edge = unit / 3;
      const left = Math.max(x - width / 2, edge), top = Math.max(y - height / 2, edge);
      const right = Math.min(x + width / 2, context.canvas.width - edge);
      const bottom = Math.min(y + height / 2, context.canvas.height - edge);
      box.rect(left, top, right - left, bottom - top);
      stroke(context, box, unit / 2.5, [unit * 1.5, unit]);
    }
    const radius = Math.max(2.2 * unit, 4);
    ring.arc(x, y, radius, 0, 2 * Math.PI);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      ring.moveTo(x + dx * radius, y + dy * radius);
      ring.lineTo(x + 1.8 * dx * radius, y + 1.8 * dy * radius);
    }
    stroke(context, ring, Math.max(unit / 2, 1.2));
  }

  function paint(canvas, view, frame) {
    const context = canvas.getContext("2d");
    const scale = canvas.width / WIDTH, isHot = byId("heat").checked;
    const picture = isHot ? mutedPictures[frame] : pictures[frame];
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    if (isHot) {
      const rate = Math.min(scale, 1);
      paintHeat(context, view, frame, Math.ceil(HEIGHT * rate), Math.ceil(WIDTH * rate));
    }
    if (byId("outline").checked) paintOutline(context, view, frame, scale);
    if (isAttention && nearest(view.queries.times, frame) === snapped(view)[0]) {
      paintQuery(context, view, scale);
    }
  }

  // ---- Words --------------------------------------------------------------

  const element = (name, text = "", parent = null) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };
  const note = (text) => {
    const made = element("p", text);
    made.className = "note";
    return made;
  };
  function short(x, digits = 3) {
    if (x === 0) return "0";
    return Math.abs(x) >= 100 ? x.toFixed(0) : x.toPrecision(digits);
  }
  function percent(x) {
    if (x > 0 && x < 0.001) return "< 0.1 %";
    return `${(100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0)} %`;
  }

  function timeOf(frame) {
    const seconds = data.seconds[frame];
    return seconds === null ? "" : `${seconds.toFixed(2)} s`;
  }

  function frameName(time) {
    const frame = clampFrame(time), seconds = timeOf(frame);
    return `frame ${frame}${seconds && ` (${seconds})`}`;
  }

  const placeName = ([t, y, x]) =>
    `${frameName(t)}, row ${Math.round(y)}, column ${Math.round(x)}`;

  // How many times what a key would have if all had the same.
  const relative = (view, weight) => {
    const { total } = numbersOf(view);
    return total > 0 ? (weight * view.num_keys) / total : 0;
  };

  function strongestPlace(view) {
    const { best, low, high } = numbersOf(view);
    if (low === 0 && high === 0) return null;
    const [t, y, x] = unravel(best, view.shape), { times, rows, columns } = view.keys;
    const place = [times[t], rows[y], columns[x]];
    return { place, weight: Math.abs(low) > Math.abs(high) ? low : high };
  }

  function facts(view) {
    const found = strongestPlace(view), rows = [];
    const where = found ? placeName(found.place) : "nowhere: all weights are 0";
    if (!isAttention) return [["Strongest place", where]];
    const { entropy, share, evenShare } = numbersOf(view);
    rows.push(["Query", placeName(placeOf(view))]);
    rows.push(["Strongest place", where]);
    if (found) {
      rows.push(["Its weight", `${short(relative(view, found.weight))} × ${view.even}`]);
      const [times] = view.window, same = Math.round(evenShare * times);
      const even = `${percent(evenShare)}, ${same} of ${times} position${times === 1 ? "" : "s"} in time`;
      rows.push(["At the query's time", `${percent(share)} of the weight (all alike: ${even})`]);
      const most = Math.log(view.num_keys);
      const part = most > 0 ? `, ${percent(entropy / most)} of the most possible` : "";
      rows.push(["Entropy", `${entropy.toFixed(2)} nats${part}`]);
    }
    const [frames, height, width] = view.field;
    rows.push(["Receptive field", `${frames} frame${frames === 1 ? "" : "s"} × ${height} × ${width} pixels`]);
    return rows;
  }

  function list(parent, rows) {
    const made = element("dl");
    for (const [name, value] of rows) {
      element("dt", name, made);
      element("dd", value, made);
    }
    parent.replaceChildren(made);
  }

  function sayScores() {
    const { top, are_probabilities: areProbabilities } = data.scores;
    if (!top.length) return;
    element("h2", areProbabilities ? "Predictions" : "Highest outputs", byId("scores"));
    const made = element("ol", "", byId("scores"));
    const most = areProbabilities ? 1 : Math.max(...top.map(([, score]) => Math.abs(score)), 1e-30);
    for (const [name, score] of top) {
      const item = element("li", "", made);
      element("bdi", name, item);
      element("span", areProbabilities ? percent(score) : short(score), item);
      const bar = element("b", "", element("i", "", item));
      bar.style.width = `${100 * Math.min(Math.max(score / most, 0), 1)}%`;
    }
    if (!areProbabilities) {
      byId("scores").append(note(
        "The network does not say that these are probabilities."));
    }
  }

  function sayLegend(view) {
    const bar = byId("scale").getContext("2d"), picture = new ImageData(256, 1);
    picture.data.set(tableOf(view));
    for (let i = 3; i < picture.data.length; i += 4) picture.data[i] = 255;
    bar.putImageData(picture, 0, 0);
    const [from, to] = limits(view), { largest } = numbersOf(view);
    // Weights that are almost alike are still told apart.
    const digits = from > 0 ? 4 : 3;
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => {
      const weight = from + part * (to - from);
      if (isAttention) return `${short(relative(view, weight), digits)} ×`;
      return percent(largest > 0 ? weight / largest : 0);
    });
    byId("ticks").replaceChildren(...ticks.map((text) => element("span", text)));
    byId("scale").setAttribute("aria-label", `Colours from ${ticks[0]} to ${ticks.at(-1)}`);
    byId("unit").textContent = view.unit;
    byId("stretched").hidden = view.signed;
  }

  // ---- Changes ------------------------------------------------------------

  let asked = false;

  function update(announce = true) {
    if (announce) say();
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      redraw();
    });
  }

  function redraw() {
    const view = data.views[state.view];
    paint(byId("stage"), view, state.frame);
    thumbs.forEach((thumb, frame) => {
      paint(thumb, view, frame);
      thumb.parentElement.classList.toggle("chosen", frame === state.frame);
    });
    smalls.forEach((small, number) => {
      paint(small.querySelector("canvas"), data.views[number], state.frame);
      small.classList.toggle("chosen", number === state.view);
      small.setAttribute("aria-pressed", number === state.view);
    });
    byId("caption").textContent = `In view: ${frameName(state.frame)}`;
    byId("frame").value = state.frame;
    byId("frame").setAttribute("aria-valuetext", frameName(state.frame));
    byId("view").value = state.view;
    byId("stage").setAttribute("aria-label", `${frameName(state.frame)} with heat of ${view.name}`);
    byId("back").disabled = state.frame === 0;
    byId("on").disabled = state.frame === FRAMES - 1;
    byId("title").querySelector("bdi").textContent = view.name;
    list(byId("facts"), facts(view));
    byId("about").replaceChildren(...view.about.map((text) => note(text)));
    sayLegend(view);
  }

  function say() {
    const view = data.views[state.view];
    const words = facts(view).slice(0, 4).map(([name, value]) => `${name}: ${value}`);
    byId("status").textContent = `${view.name}. ${words.join(". ")}.`;
  }

  function ask(place, announce = true) {
    if (isAttention) state.query = place;
    // The frame that was asked stays in view, whichever query is nearest.
    state.frame = clampFrame(place[0]);
    update(announce);
  }

  function choose(number) {
    state.view = (number + data.views.length) % data.views.length;
    update();
  }

  function show(frame) {
    state.frame = Math.min(Math.max(frame, 0), FRAMES - 1);
    update(false);
    byId("status").textContent = `In view: ${frameName(state.frame)}.`;
  }

  // Moves the query to a neighbour among those stored.
  function move(axis, step) {
    if (!isAttention) return axis === 0 ? show(state.frame + step) : undefined;
    const view = data.views[state.view], axes = axesOf(view), at = snapped(view);
    at[axis] = Math.min(Math.max(at[axis] + step, 0), axes[axis].length - 1);
    const place = [...state.query];
    place[axis] = axes[axis][at[axis]];
    ask(place);
  }

  function pixel(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const part = (at, start, length) =>
      Math.min(Math.max((at - start) / length, 0), 1);
    return [
      part(event.clientY, box.top, box.height) * HEIGHT - 0.5,
      part(event.clientX, box.left, box.width) * WIDTH - 0.5,
    ];
  }

  // For the large frame; elsewhere they scroll.
  const STAGE_KEYS = {
    ArrowUp: () => move(1, -1),
    ArrowDown: () => move(1, 1),
    ArrowLeft: () => move(2, -1),
    ArrowRight: () => move(2, 1),
    PageUp: () => move(0, -1),
    PageDown: () => move(0, 1),
  };
  const KEYS = {
    "[": () => move(0, -1),
    "]": () => move(0, 1),
    ",": () => show(state.frame - 1),
    ".": () => show(state.frame + 1),
    b: () => choose(state.view + 1),
    B: () => choose(state.view - 1),
    h: () => byId("heat").click(),
  };

  function onKey(event) {
    // Many keyboards have the brackets on AltGr, which may count as Ctrl + Alt.
    const isAltGr = event.getModifierState("AltGraph");
    if (event.metaKey || (!isAltGr && (event.ctrlKey || event.altKey))) return;
    // Caps Lock changes nothing.
    const isName = event.key.length > 1;
    const key = isName ? event.key
      : event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
    const onStage = event.target === byId("stage");
    // A list takes letters itself, to search in it.
    const isTyping = event.target.matches("select") && /[a-z]/i.test(key);
    const act = (onStage && STAGE_KEYS[key]) || (!isTyping && KEYS[key]);
    if (!act) return;
    event.preventDefault();
    act();
  }

  // ---- Start --------------------------------------------------------------

  const thumbs = [], smalls = [], pictures = [], mutedPictures = [];

  function makeCanvas(parent, label) {
    const canvas = element("canvas", "", parent);
    canvas.width = Math.max(Math.round(WIDTH * THUMB), 1);
    canvas.height = Math.max(Math.round(HEIGHT * THUMB), 1);
    if (label) {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
    } else {
      canvas.setAttribute("aria-hidden", "true");
    }
    return canvas;
  }

  function build() {
    document.body.classList.toggle("plain", !isAttention);
    byId("heading").textContent = isAttention
      ? "Where the network's blocks look" : "Where the network finds a class";
    byId("choice").textContent = isAttention ? "Block" : "Class";
    byId("boxed").hidden = !isAttention;
    byId("how").textContent = isAttention
      ? "Click a point in a frame: every frame then shows where the block looks from there."
      : "Click a frame to see it large.";
    data.views.forEach((view, number) => {
      element("option", view.name, byId("view")).value = number;
    });
    byId("frame").max = FRAMES - 1;
    const stage = byId("stage"), scale = Math.max(1, Math.round(640 / Math.max(WIDTH, HEIGHT)));
    [stage.width, stage.height] = [WIDTH * scale, HEIGHT * scale];
    for (let frame = 0; frame < FRAMES; frame++) {
      const figure = element("figure", "", byId("strip"));
      thumbs.push(makeCanvas(figure, frameName(frame)));
      element("figcaption", [frame, timeOf(frame)].filter((x) => x !== "").join(" · "), figure);
      thumbs[frame].addEventListener("click", (event) => ask([frame, ...pixel(thumbs[frame], event)]));
    }
    if (data.views.length > 1) {
      byId("blocks").hidden = false;
      byId("blocks").querySelector("h2").textContent =
        isAttention ? "All blocks, this frame" : "All classes, this frame";
      data.views.forEach((view, number) => {
        const button = element("button", "", byId("small"));
        button.type = "button";
        makeCanvas(button);
        element("span", view.name, button);
        button.addEventListener("click", () => choose(number));
        smalls.push(button);
      });
    }
    const rows = isAttention
      ? [["← ↑ → ↓", "move the query, with the large frame in focus"], ["[ ]", "move the query to an earlier or later frame"]]
      : [];
    rows.push(
      ["PageUp PageDown", isAttention ? "as [ and ], with the large frame in focus" : "look at another frame, with the large frame in focus"],
      [", .", isAttention ? "look at another frame; the query stays" : "look at another frame"],
      ["b B", isAttention ? "next or previous block" : "next or previous class"],
      ["h", "heat on and off"]);
    for (const [keys, meaning] of rows) {
      const term = element("dt", "", byId("keys"));
      for (const key of keys.split(" ")) {
        element("kbd", key, term);
        term.append(" ");
      }
      element("dd", meaning, byId("keys"));
    }
    for (const text of data.notes) element("li", text, byId("notes"));
    sayScores();
  }

  function listen() {
    const stage = byId("stage");
    const askAt = (event, announce) => ask([state.frame, ...pixel(stage, event)], announce);
    stage.addEventListener("click", (event) => askAt(event, true));
    stage.addEventListener("pointermove", (event) => {
      // Fingers scroll.
      if (event.pointerType === "mouse" && event.buttons & 1) askAt(event, false);
    });
    document.addEventListener("keydown", onKey);
    byId("view").addEventListener("change", () => choose(Number(byId("view").value)));
    byId("frame").addEventListener("input", () => show(Number(byId("frame").value)));
    byId("back").addEventListener("click", () => show(state.frame - 1));
    byId("on").addEventListener("click", () => show(state.frame + 1));
    for (const id of ["heat", "outline", "box", "stretch"]) {
      byId(id).addEventListener("change", () => update(false));
    }
  }

  if (!("DecompressionStream" in window)) {
    throw new Error("this browser has no DecompressionStream; browsers since 2023 have it");
  }
  byId("status").textContent = "Unpacking…";
  for (const frame of data.frames) {
    const picture = new Image();
    picture.src = `data:image/jpeg;base64,${frame}`;
    await picture.decode();
    pictures.push(picture);
    mutedPictures.push(muted(picture));
  }
  for (const view of data.views) await unpack(view);
  build();
  listen();
  ask(state.query);
  // For scripts, and for tests of this page.
  window.attentionPage = {
    data,
    state,
    weights: () => weights(data.views[state.view]),
    strongest: () => strongest(data.views[state.view]),
    heat: (frame) => heatOf(data.views[state.view], frame, HEIGHT, WIDTH),
    queryPlace: () => placeOf(data.views[state.view]),
  };
  document.documentElement.dataset.ready = "";
}

start().catch((error) => {
  byId("status").className = "";
  byId("status").textContent = `The page cannot be shown: ${error.message}`;
});
