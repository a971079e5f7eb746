// Puts the page together: what is seen when, the model, the theme, the key, tabs and errors.

import { call, key } from './api.js';
import { setUpAsks } from './asks.js';
import { setUpCode } from './code.js';
import { $, complain } from './dom.js';
import { setUpIntake } from './intake.js';
import { setUpList } from './list.js';
import { setUpLog } from './log.js';
import { setUpPrompts } from './prompts.js';
import { setUpSave } from './save.js';
import { setUpSettings } from './settings.js';
import { setUpStage } from './stage.js';
import { changed, on, state } from './state.js';
import { setUpView } from './view.js';

const THEME = 'sam3-theme';

/** Light, dark, or as the system has it. */
function theme() {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches);
  const show = () => {
    $('theme').setAttribute('aria-pressed', String(dark()));
    $('theme').title = dark() ? 'Use light colours' : 'Use dark colours';
  };
  const kept = localStorage.getItem(THEME);
  if (kept === 'light' || kept === 'dark') root.dataset.theme = kept;
  $('theme').onclick = () => {
    root.dataset.theme = dark() ? 'light' : 'dark';
    localStorage.setItem(THEME, root.dataset.theme);
    show();
  };
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  show();
}

/** Tabs that arrows move between. */
function tabs() {
  const all = [...document.querySelectorAll('[role=tab]')];
  const pick = (tab) => {
    for (const t of all) {
      const chosen = t === tab;
      t.setAttribute('aria-selected', String(chosen));
      t.tabIndex = chosen ? 0 : -1;
      $(t.getAttribute('aria-controls')).hidden = !chosen;
    }
  };
  all.forEach((tab, i) => {
    tab.onclick = () => pick(tab);
    tab.onkeydown = (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = all.at(to % all.length);
      pick(next);
      next.focus();
    };
  });
}

let dismissed = false;

/** What the model is good for, if that is little: said before there is a picture, and beside pictures that are beyond it. */
function note() {
  const { info, picture } = state;
  // Weights for tests say so themselves.
  const random = /^random\b/i.test(info?.origin ?? '');
  if (random) $('demo-words').textContent = 'The weights of this model are random, for tests: what it finds means nothing.';
  $('demo').hidden = dismissed || !(random || info?.demo) || picture?.name === 'shapes.png';
}

/** What is seen: where pictures are chosen, or what is done with one. */
function scenes() {
  const scene = () => {
    const working = Boolean(state.picture);
    const before = !$('work').hidden;
    $('welcome').hidden = working;
    $('work').hidden = !working;
    $('other').hidden = !working;
    note();
    if (!working && before) $('choose').focus();
    if (working) {
      $('marks').setAttribute('aria-label', `${state.picture.name}. Arrow keys move a cross, Enter selects what is under it.`);
      document.title = `${state.picture.name} – sam3`;
    } else {
      document.title = 'sam3 playground';
    }
  };
  on('picture', scene);
  on('waiting', () => {
    const reading = Boolean(state.picture && !state.picture.id);
    $('reading').hidden = !reading;
    $('progress').classList.toggle('on', Boolean(state.waiting));
    $('stage').setAttribute('aria-busy', String(Boolean(state.waiting)));
  });
  scene();
}

/** Which model answers, and what it is good for. */
function introduce(info) {
  state.info = info;
  const origin = info.origin ?? '';
  // The model says so itself where the server was not told.
  info.demo ||= /\bdemo model\b/i.test(origin);
  // The device's details are for the tip.
  const device = info.device.split(',')[0];
  $('model').textContent = `${info.demo ? 'Demo model' : info.model} · ${device}`;
  $('model').title = [info.device, origin].filter(Boolean).join('; ');
  $('address').hidden = !info.fetch;
  $('ask').hidden = !info.concepts;
  $('ideas').hidden = !info.concepts;
  changed('picture');
}

/** Asks for a key until one fits, if the server wants one. */
async function meet() {
  try {
    introduce(await call('/api/info'));
    $('locked').hidden = true;
  } catch (error) {
    if (error.status !== 401) {
      $('model').textContent = 'No model';
      complain(error.message);
      return;
    }
    $('model').textContent = 'Locked';
    $('locked').hidden = false;
    $('welcome').hidden = true;
    if (key.get()) complain(error.message);
    $('key').focus();
  }
}

theme();
tabs();
// First: what draws must have room to measure.
scenes();
setUpView();
setUpStage();
setUpAsks();
setUpList();
setUpPrompts();
setUpIntake();
setUpSave();
setUpSettings();
setUpCode();
setUpLog();
$('error-close').onclick = () => complain('');
$('demo-close').onclick = () => {
  dismissed = true;
  note();
};
$('unlock').onsubmit = (event) => {
  event.preventDefault();
  key.set($('key').value.trim());
  complain('');
  meet();
};
meet();
