"""Fields of many points: conversion, laws with many rows on them, and their conditioning."""
