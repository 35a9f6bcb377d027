'use strict';
// The page: state <-> controls <-> address, and pictures of what the library (lowrank.js, from playground.cpp) computes.

const n = 64, steps = 400;
const trainedRanks = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32];

// What a setting may be; sliders move over the list's positions.
const choices = {
  k: range(1, 16), noise: range(0, 30).map(i => i / 20), r: range(1, 32), alpha: [1, 2, 4, 8, 16, 32, 64, 128],
  rate: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1], rs: [0, 1], base: [0, 1], format: range(0, 6),
  block: [32, 64, 128, 256, 512, 1024, 2048, 4096], outliers: range(0, 8),
};
const defaults = {k: 4, noise: 0.1, r: 4, alpha: 16, rate: 0.02, rs: 0, base: 0, format: 0, block: 64, outliers: 0};
const ggml = [5, 6];  // formats whose blocks are 32

const state = {...defaults};
const view = {};  // what the pictures show, by name: numbers of the library
let library, dirty = new Set(), frame = 0, paused = false;

function range(first, last) { return Array.from({length: last - first + 1}, (_, i) => first + i); }
const byId = id => document.getElementById(id);
const controls = () => document.querySelectorAll('[data-key]');
const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

// ---- Numbers of the library ---------------------------------------------------------------------------------------------------------

const doubles = (at, count) => Array.from(library.HEAPF64.subarray(at >> 3, (at >> 3) + count));
const floats = (at, count) => library.HEAPF32.slice(at >> 2, (at >> 2) + count);

function computeTask() {
  view.spectrum = doubles(library._spectrum(state.k, state.noise), n);
  const all = doubles(library._errors(), 3 * (n + 1));
  view.errors = {floor: all.slice(0, n + 1), measured: all.slice(n + 1, 2 * n + 2), random: all.slice(2 * n + 2)};
}

function computeBits() {
  view.summary = doubles(library._quantize(state.format, state.block, state.outliers), 5);
  view.weights = floats(library._weights(), n * n);
  view.stored = floats(library._stored(), n * n);
  view.codes = library.HEAPU8.slice(library._codes(), library._codes() + n * n);
  view.levels = doubles(library._levels(), 32);
  view.blockErrors = doubles(library._block_errors(), view.summary[4]);
}

const begin = (student, rank) => library._begin(student, rank, state.alpha, state.rs, state.rate, steps, state.base);
function beginTraining(sweepToo) {
  view.floors = doubles(library._floors(state.base), n + 1);
  view.losses = [];
  begin(0, state.r);
  if (sweepToo) view.sweep = {done: [], next: 0, step: 0};
}

// Some steps of the layer on show, then of the next one for the loss by rank, for a few milliseconds a frame.
function trainFor(milliseconds) {
  const until = performance.now() + milliseconds, slice = 4;
  do {
    if (view.losses.length < steps) {
      view.losses.push(...doubles(library._train(0, slice), slice));
    } else if (view.sweep.next < trainedRanks.length) {
      const sweep = view.sweep, rank = trainedRanks[sweep.next];
      if (sweep.step === 0) begin(1, rank);
      const losses = doubles(library._train(1, slice), slice);
      if ((sweep.step += slice) < steps) continue;
      sweep.done.push([rank, losses[slice - 1]]);
      sweep.next += 1, sweep.step = 0;
    } else return;
  } while (performance.now() < until);
}
const isTraining = () => view.losses.length < steps || view.sweep.next < trainedRanks.length;

// ---- State: controls and address ----------------------------------------------------------------------------------------------------

const needs = {k: ['task'], noise: ['task'], r: ['rank'], alpha: ['layer'], rate: ['layer'], rs: ['layer'], base: ['layer'],
  format: ['bits'], block: ['bits'], outliers: ['bits']};

function set(key, value) {
  if (state[key] === value) return;
  state[key] = value;
  needs[key].forEach(what => dirty.add(what));
  schedule();
}
const address = () => '#' + Object.keys(defaults).map(key => `${key}=${state[key]}`).join('&');
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key in defaults) {
    const value = Number(given.get(key));
    set(key, given.has(key) && choices[key].includes(value) ? value : defaults[key]);
  }
  showControls();
}
function showControls() {
  for (const control of controls()) {
    const key = control.dataset.key, value = state[key];
    if (control.type === 'range') {
      control.value = choices[key].indexOf(value);
      control.setAttribute('aria-valuetext', value);
      control.nextElementSibling.textContent = value;
    } else if (control.type === 'checkbox') control.checked = value === 1;
    else control.value = value;
  }
  byId('block').disabled = ggml.includes(state.format);
  if (ggml.includes(state.format)) byId('block').nextElementSibling.textContent = 32;
}
function listen() {
  for (const control of controls()) {
    const key = control.dataset.key;
    if (control.type === 'range') control.max = choices[key].length - 1;
    const read = () => {
      const given = control.type === 'checkbox' ? control.checked : control.value;
      set(key, control.type === 'range' ? choices[key][given] : Number(given));
      showControls();
    };
    control.addEventListener('input', read);
    control.addEventListener('change', () => { read(); if (location.hash !== address()) history.pushState(null, '', address()); });
  }
  window.addEventListener('popstate', readAddress);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawBits);
  let drawnWidth = innerWidth;
  window.addEventListener('resize', () => {  // a phone's address bar changes the height alone
    if (innerWidth === drawnWidth) return;
    drawnWidth = innerWidth;
    drawTask(), drawTraining(), drawBits();
  });
  byId('pause').addEventListener('click', () => { paused = !paused; showPause(); schedule(); });
  byId('again').addEventListener('click', () => { paused = false; dirty.add('layer'); showPause(); schedule(); });
}
function showPause() { byId('pause').textContent = paused ? 'Go on' : 'Pause'; }

// ---- Frames -------------------------------------------------------------------------------------------------------------------------

function schedule() { if (library && !frame) frame = requestAnimationFrame(update); }

function update() {
  frame = 0;
  const changed = dirty;
  dirty = new Set();
  if (changed.has('task')) computeTask();
  if (changed.has('bits')) computeBits();
  if (changed.has('task') || changed.has('rank')) drawTask();
  if (changed.has('bits')) drawBits();
  const restart = changed.has('task') || changed.has('layer') || (changed.has('bits') && (state.base === 1 || !view.sweep));
  if (restart || changed.has('rank')) beginTraining(restart);
  else if (changed.size === 0 && !paused) trainFor(10);  // not in the frame that answers a slider
  if (!still() || restart || changed.has('rank') || !isTraining() || paused) drawTraining();
  if (isTraining() && !paused) schedule();
}

// ---- Pictures -----------------------------------------------------------------------------------------------------------------------

const left = 60, right = 12, top_ = 12, bottom = 40;
const short = x => x === 0 ? '0' : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5 ? String(Number(x.toPrecision(4))) : x.toExponential(2);
const power = x => '10' + String(Math.round(Math.log10(x))).replace(/[-0-9]/g, c => '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'['-0123456789'.indexOf(c)]);

// A chart of SVG with axes, as wide as its place. y: {max} linear from 0, or {min, max, log: true}.
function chart(id, x, y, xLabel, yLabel) {
  const width = Math.max(240, byId(id).clientWidth), height = Math.min(260, Math.max(200, Math.round(0.6 * width)));
  const at = (share, a, b) => a + share * (b - a);
  const px = v => at((v - x.min) / (x.max - x.min), left, width - right);
  const scaled = y.log ? v => (Math.log10(Math.max(v, y.min)) - Math.log10(y.min)) / (Math.log10(y.max) - Math.log10(y.min)) : v => v / y.max;
  const py = v => at(Math.min(1, scaled(v)), height - bottom, top_);
  let body = '';
  for (const v of y.ticks) {
    body += `<line class="grid" x1="${left}" x2="${width - right}" y1="${py(v)}" y2="${py(v)}"/>`;
    body += `<text x="${left - 7}" y="${py(v) + 4}" text-anchor="end">${y.log ? power(v) : short(v)}</text>`;
  }
  for (const v of x.ticks) body += `<text x="${px(v)}" y="${height - bottom + 17}" text-anchor="middle">${short(v)}</text>`;
  body += `<line class="axis" x1="${left}" x2="${width - right}" y1="${height - bottom}" y2="${height - bottom}"/>`;
  body += `<text x="${(left + width - right) / 2}" y="${height - 4}" text-anchor="middle">${xLabel}</text>`;
  body += `<text transform="translate(11 ${(top_ + height - bottom) / 2}) rotate(-90)" text-anchor="middle">${yLabel}</text>`;
  const number = v => v.toFixed(1);
  return {
    px, py,
    line(points, kind) { body += `<polyline class="${kind}" points="${points.map(([a, b]) => number(px(a)) + ',' + number(py(b))).join(' ')}"/>`; },
    dot(a, b, kind = '', radius = 3) { body += `<circle class="dot ${kind}" cx="${number(px(a))}" cy="${number(py(b))}" r="${radius}"/>`; },
    bar(a, b, half, kind) {
      body += `<rect class="bar ${kind}" x="${number(px(a - half))}" width="${number(px(a + half) - px(a - half))}"`
        + ` y="${number(py(b))}" height="${number(py(0) - py(b))}"/>`;
    },
    vertical(a) { body += `<line class="here" x1="${px(a)}" x2="${px(a)}" y1="${top_}" y2="${height - bottom}"/>`; },
    show(text) {
      byId(id).innerHTML = `<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" aria-hidden="true">${body}</svg>`;
      byId(id).setAttribute('aria-label', text);
    },
  };
}

function linear(max, count = 4) {
  const raw = max / count, decade = 10 ** Math.floor(Math.log10(raw)), unit = [1, 2, 5, 10].find(m => m * decade >= raw) * decade;
  return {max, ticks: range(0, Math.floor(max / unit * 1.0001)).map(i => i * unit)};
}
// Decades that hold all values; zeros lie on the lowest one.
function decades(values) {
  const least = 1e-10, most = Math.max(...values, least * 10);
  const from = Math.floor(Math.log10(Math.max(least, Math.min(...values)))), to = Math.ceil(Math.log10(most));
  const lowest = Math.min(from, to - 1), every = Math.ceil((to - lowest) / 6);
  return {min: 10 ** lowest, max: 10 ** to, log: true, ticks: range(lowest, to).filter(p => (to - p) % every === 0).map(p => 10 ** p)};
}
const ranks = {min: 0, max: 64, ticks: [0, 8, 16, 32, 48, 64]};

function drawTask() {
  const {spectrum, errors} = view, r = state.r;
  const bars = chart('spectrum', {min: 0, max: 65, ticks: [1, 8, 16, 32, 48, 64]}, linear(spectrum[0] * 1.05), 'i', 'singular value');
  spectrum.forEach((s, i) => bars.bar(i + 1, s, 0.38, i < r ? 'kept' : ''));
  bars.show(`Singular values of Delta: the first is ${short(spectrum[0])}, number ${r} is ${short(spectrum[r - 1])}, `
    + `the next ${short(spectrum[r])}.`);

  const curve = chart('error', ranks, linear(1), 'rank r', 'relative error');
  curve.vertical(r);
  curve.line(errors.random.map((e, i) => [i, e]), 'rival');
  curve.line(errors.floor.map((e, i) => [i, e]), 'floor');
  errors.measured.forEach((e, i) => { if (i % 2 === 0 || i < 16) curve.dot(i, e, '', 1.8); });
  curve.dot(r, errors.measured[r], 'here', 5);
  curve.show(`Relative error by rank: at rank ${r} it is ${short(errors.measured[r])}, the floor is ${short(errors.floor[r])}, `
    + `random directions leave ${short(errors.random[r])}.`);
  byId('floor').textContent = errors.floor[r].toFixed(6);
  byId('measured').textContent = errors.measured[r].toFixed(6);
  byId('random').textContent = errors.random[r].toFixed(6);
}

function drawTraining() {
  const {losses, floors, sweep} = view, r = state.r;
  const start = floors[0], lowest = Math.min(start, ...losses, Math.max(floors[r], 1e-10));
  const curve = chart('training', {min: 0, max: steps, ticks: [0, 100, 200, 300, 400]}, decades([lowest, start * 1.2]), 'step', 'loss');
  curve.line([[0, floors[r]], [steps, floors[r]]], 'floor');
  curve.line(losses.map((loss, i) => [i, loss]), 'training');
  if (losses.length) curve.dot(losses.length - 1, losses[losses.length - 1], '', 4);
  const last = losses.length ? losses[losses.length - 1] : NaN;
  curve.show(losses.length ? `Loss after ${losses.length} steps: ${short(last)}; the floor is ${short(floors[r])}.` : 'Training has not begun.');

  const all = [...floors.slice(1, 33), ...sweep.done.map(([, loss]) => loss)];
  const byRank = chart('by-rank', {min: 0, max: 33, ticks: [1, 4, 8, 16, 24, 32]},
    decades([...all.map(v => Math.max(v, 1e-10)), start]), 'rank r', 'loss');
  byRank.vertical(r);
  byRank.line(floors.slice(1, 33).map((loss, i) => [i + 1, loss]), 'floor');
  sweep.done.forEach(([rank, loss]) => byRank.dot(rank, loss, '', 3.5));
  const list = sweep.done.map(([rank, loss]) => `${rank}: ${short(loss)}`).join(', ');
  byRank.show(list ? `Loss after training, by rank: ${list}.` : 'Training has not begun.');
  byId('scale').textContent = short(state.rs ? state.alpha / Math.sqrt(r) : state.alpha / r);
  byId('trained').textContent = `${r * 2 * n}; W has ${n * n}`;
  byId('step').textContent = `${losses.length} of ${steps}`;
  byId('loss').textContent = losses.length ? short(last) : '–';
  byId('loss-floor').textContent = short(Math.max(floors[r], 0) < 1e-15 ? 0 : floors[r]);
}

const colour = name => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
};
// A matrix as a picture: value in [-1, 1] from one colour over the middle to the other.
function paint(id, value, text) {
  const negative = colour('--negative'), middle = colour('--middle'), positive = colour('--positive');
  const context = byId(id).getContext('2d'), image = context.createImageData(n, n);
  for (let i = 0; i < n * n; ++i) {
    const v = Math.max(-1, Math.min(1, value(i))), end = v < 0 ? negative : positive, share = Math.abs(v);
    for (let c = 0; c < 3; ++c) image.data[4 * i + c] = middle[c] + share * (end[c] - middle[c]);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  byId(id).setAttribute('aria-label', text);
}

function drawBits() {
  const {weights, stored, codes, levels, summary, blockErrors} = view;
  const table = levels.slice(0, 16), counts = levels.slice(16), blocks = summary[4], size = n * n / blocks;
  const spread = 3 / Math.sqrt(n), reach = Math.max(...table.map(Math.abs)), middle = Math.min(...table) >= 0 ? reach / 2 : 0;
  const largest = summary[1], worst = Math.max(...blockErrors), mean = [...blockErrors].sort((a, b) => a - b)[blocks >> 1];
  paint('weights', i => weights[i] / spread, `The weight W, 64 by 64, normal numbers with ${state.outliers} outliers.`);
  paint('codes', i => (table[codes[i]] - middle) / (reach - middle), 'The 4-bit code of each weight, coloured by the value that it stands for.');
  paint('rest', i => Math.abs(weights[i] - stored[i]) / largest, `The error of each weight; the largest is ${short(largest)}.`);
  const full = Math.max(0.2, worst);
  paint('blocks', i => blockErrors[Math.floor(i / size)] / full,
    `Error of ${blocks} blocks of ${size} weights: the median is ${short(mean)}, the worst ${short(worst)}.`);
  const which = blocks === 1 ? 'the one block' : `the ${blocks} blocks of ${size}`;
  byId('blocks-caption').textContent = `Error of ${which}: median ${short(mean)}, worst ${short(worst)}`;

  const order = range(0, 15).sort((a, b) => table[a] - table[b]), low = Math.min(...table), high = Math.max(...table), pad = (high - low) * 0.04;
  const used = chart('levels', {min: low - pad, max: high + pad, ticks: [low, (low + high) / 2, high]},
    linear(Math.max(...counts) * 1.05), 'value of the code', 'weights');
  order.forEach(code => used.bar(table[code], counts[code], (high - low) * 0.014, 'kept'));
  used.show('How many weights take each value: ' + order.map(code => `${short(table[code])}: ${counts[code]}`).join(', ') + '.');
  byId('relative').textContent = summary[0].toFixed(6);
  byId('largest').textContent = summary[1].toFixed(6);
  byId('bits').textContent = summary[2].toFixed(4);
  byId('bytes').textContent = `${summary[3]} (fp32: ${4 * n * n})`;
}

// ---- Beginning ----------------------------------------------------------------------------------------------------------------------

async function main() {
  if (typeof createLowrank === 'undefined') {
    byId('status').textContent = 'The library is not built yet. Run: sh docs/playground/build.sh FOLDER, and open FOLDER/index.html.';
    return;
  }
  library = await createLowrank();
  listen();
  readAddress();
  showControls();
  dirty = new Set(['task', 'bits', 'layer', 'rank']);
  update();
  byId('status').hidden = true;
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}
main();

// For the test, and for the curious: the numbers behind the pictures.
window.playground = {state, view, isTraining};
